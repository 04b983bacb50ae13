"""What guesses cost and bring: tokens a second with and without, from the text itself or by a smaller model.

    python -m benchmarks.speculation MODEL TEXTS.txt [--assistant-model SMALL] [--guesses 8] [--rounds 10]

Repetitive: each line of TEXTS stands three times in the prompt, as a summary or an edit repeats what it is given.
Ordinary: each line by itself, greedily (where small models soon repeat themselves) and drawn at temperature 1 (where
they do not). The answers with and without guesses are checked to be the same.

Both ways take turns prompt by prompt, so that a machine that is slow for a second is so for both. A round is all
prompts once; its ratio is that of their summed times, by the clock and by CPU time. `passes` is how
many tokens come from one pass through the model, which no other process changes.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import header
from janeox import LM, load
from janeox.config import SamplingConfig


class Spent(NamedTuple):
    """Seconds by the clock and of CPU, and passes of the backend."""

    wall: float
    cpu: float
    passes: int


def answer(lm: LM, prompt: str, settings: dict[str, object]) -> tuple[Spent, list[int]]:
    """What one prompt's answer costs, and its ids."""
    engine = lm.engine(1)
    generated = engine.submit(lm.tokenizer.encode(prompt), SamplingConfig(**settings))  # type: ignore[arg-type]
    passes, wall, cpu = 0, time.perf_counter(), time.process_time()
    while not engine.idle:
        engine.step()
        passes += 1
    return Spent(time.perf_counter() - wall, time.process_time() - cpu, passes), generated.ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--assistant-model")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--guesses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    print(header())
    lm = load(asked.model, bits=asked.bits, assistant_model=asked.assistant_model)
    lines = [line for line in asked.texts.read_text(encoding="utf-8").splitlines() if line][:8]
    repeated = [f"{line}\n" * 3 for line in lines]
    guessed = "num_assistant_tokens" if asked.assistant_model else "prompt_lookup_num_tokens"
    print(f"{guessed} = {asked.guesses}; ratios: median (lowest, highest) of {asked.rounds} rounds")
    print(f"{'text':<18}{'without':>9}{'with':>9}{'by the clock':>22}{'by CPU time':>22}{'passes':>9}")
    for name, prompts, temperature in (
        ("repetitive", repeated, 0),
        ("ordinary, greedy", lines, 0),
        ("ordinary, drawn", lines, 1),
    ):
        settings = {
            "max_new_tokens": asked.tokens,
            "min_new_tokens": asked.tokens,
            "temperature": temperature,
            "seed": 0,
        }
        compare(lm, name, prompts, settings, guessed, asked.guesses, asked.rounds)


def compare(
    lm: LM, name: str, prompts: list[str], settings: dict[str, object], guessed: str, guesses: int, rounds: int
) -> None:
    """One line of the table."""
    without: list[Spent] = []
    with_guesses: list[Spent] = []
    for number in range(rounds):
        sums = {0: Spent(0, 0, 0), guesses: Spent(0, 0, 0)}
        for place, prompt in enumerate(prompts):
            answers = {}
            order = (0, guesses) if (number + place) % 2 else (guesses, 0)
            for some in order:
                spent, answers[some] = answer(lm, prompt, settings | {guessed: some})
                sums[some] = Spent(*map(sum, zip(sums[some], spent, strict=True)))
            if answers[0] != answers[guesses]:
                raise SystemExit("guesses changed an answer")
        without.append(sums[0])
        with_guesses.append(sums[guesses])
    tokens = int(str(settings["max_new_tokens"])) * len(prompts)
    rates = [tokens / statistics.median(spent.wall for spent in some) for some in (without, with_guesses)]
    cells = []
    for place in (0, 1):
        ratios = [a[place] / b[place] for a, b in zip(without, with_guesses, strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})")
    passes = f"{tokens / with_guesses[0].passes:.2f}"
    print(f"{name:<18}{rates[0]:>9.1f}{rates[1]:>9.1f}{cells[0]:>22}{cells[1]:>22}{passes:>9}", flush=True)


if __name__ == "__main__":
    main()
