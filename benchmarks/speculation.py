"""Tokens a second with and without guesses, in turn: from the text itself, or by a smaller model.

    python -m benchmarks.speculation MODEL TEXTS.txt [--assistant-model SMALL] [--guesses 8] [--tokens 128] [--rounds 5]

Repetitive: each line of TEXTS stands three times in the prompt, as a summary or an edit repeats what it is given.
Ordinary: each line by itself, greedily (where small models soon repeat themselves) and drawn at temperature 1 (where
they do not). The answers with and without guesses are checked to be the same.
"""

import argparse
import statistics
import time
from pathlib import Path

from benchmarks.machine import header
from janeox import LM, load


def speed(lm: LM, prompts: list[str], settings: dict[str, object]) -> tuple[float, list[list[int]]]:
    """Tokens a second over all prompts, one after another, and the ids."""
    start = time.perf_counter()
    answers = [lm.complete([prompt], **settings)[0].ids for prompt in prompts]
    return sum(map(len, answers)) / (time.perf_counter() - start), answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--assistant-model")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--guesses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    print(header())
    lm = load(asked.model, bits=asked.bits, assistant_model=asked.assistant_model)
    lines = [line for line in asked.texts.read_text(encoding="utf-8").splitlines() if line][:8]
    repeated = [f"{line}\n" * 3 for line in lines]
    guessed = "num_assistant_tokens" if asked.assistant_model else "prompt_lookup_num_tokens"
    print(f"{guessed} = {asked.guesses}\n{'text':<20}{'without':>9}{'with':>9}{'ratio':>7}   (lowest, highest)")
    cases = (("repetitive", repeated, 0), ("ordinary, greedy", lines, 0), ("ordinary, drawn", lines, 1))
    for name, prompts, temperature in cases:
        rates: dict[int, list[float]] = {0: [], asked.guesses: []}
        for _ in range(asked.rounds):
            answers = []
            for guesses, found in rates.items():
                settings = {"max_new_tokens": asked.tokens, "min_new_tokens": asked.tokens, "temperature": temperature}
                rate, ids = speed(lm, prompts, settings | {"seed": 0, guessed: guesses})
                found.append(rate)
                answers.append(ids)
            if answers[0] != answers[1]:
                raise SystemExit("guesses changed an answer")
        without, with_guesses = rates.values()
        ratios = [b / a for a, b in zip(without, with_guesses, strict=True)]
        line = f"{name:<20}{statistics.median(without):>9.1f}{statistics.median(with_guesses):>9.1f}"
        print(f"{line}{statistics.median(ratios):>7.2f}   ({min(ratios):.2f}, {max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
