"""Greedy tokens a second with and without guesses from the text itself (`prompt_lookup_num_tokens`), in turn.

python -m benchmarks.speculation MODEL TEXTS.txt [--guesses 8] [--tokens 128] [--rounds 3]

Repetitive: each line of TEXTS stands three times in the prompt, as a summary or an edit repeats what it is given.
Ordinary: each line by itself. The answers are checked to be the same.
"""

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.machine import header
from janeox import LM, load


def speed(lm: LM, prompts: list[str], tokens: int, guesses: int) -> tuple[float, list[list[int]]]:
    """Tokens a second over all prompts, one after another, and the ids."""
    start, answers = time.perf_counter(), []
    for prompt in prompts:
        settings = {"max_new_tokens": tokens, "temperature": 0, "prompt_lookup_num_tokens": guesses}
        answers.append(lm.complete([prompt], **settings)[0].ids)
    return sum(map(len, answers)) / (time.perf_counter() - start), answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--guesses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(header())
    lm = load(asked.model)
    lines = [line for line in asked.texts.read_text(encoding="utf-8").splitlines() if line][:8]
    print(f"{'text':<12}{'without':>9}{'with':>9}{'ratio':>7}")
    for name, prompts in (("repetitive", [f"{line}\n" * 3 for line in lines]), ("ordinary", lines)):
        rates: dict[int, list[float]] = {0: [], asked.guesses: []}
        for _ in range(asked.rounds):
            answers = []
            for guesses, found in rates.items():
                rate, ids = speed(lm, prompts, asked.tokens, guesses)
                found.append(rate)
                answers.append(ids)
            if answers[0] != answers[1]:
                raise SystemExit("guesses changed an answer")
        without, guessed = (statistics.median(found) for found in rates.values())
        print(f"{name:<12}{without:>9.1f}{guessed:>9.1f}{guessed / without:>7.2f}")


if __name__ == "__main__":
    main()
