"""Speed of every form of encoding, on one thread and two, beside sentencepiece's own calls and `tokenizers`.

    python -m benchmarks.native_encoder FOLDER … --text FILE … [--rounds 5] [--megabytes 8]

FOLDER holds a tokenizer, FILE is a corpus file in any format that janeox reads. In a round every form has its turn on
the same texts, which no earlier round had, since repeated text flatters caches. MB is 10^6 bytes of UTF-8; figures are
medians of the rounds. `tokenizers` gets a quarter of a round's texts. `limit` is what two threads can reach here at
best: the work that two processes do at once, which share nothing, against that of one process alone.
"""

import argparse
import gc
import itertools
import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from benchmarks.machine import header
from benchmarks.tokenizer_agreement import read_lines
from janeox.tokenizer import Tokenizer
from janeox.tokenizer.export import export

ALONE = ", one by one"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--text", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=8, help="of text a round")
    arguments = parser.parse_args()
    print(header())
    for folder in arguments.folders:
        export(folder)
        lines = (line for file in arguments.text for line in read_lines(file))
        for name, joined in (("lines", False), ("1 MB documents", True)):
            rounds = [take(lines, arguments.megabytes * 1e6, joined) for _ in range(arguments.rounds)]
            measure(folder, name, rounds)


def measure(folder: Path, name: str, rounds: list[list[str]]) -> None:
    """Prints a table: form of encoding, MB/s on one thread and on two, and what is made of them."""
    tokenizer = Tokenizer.load(folder)
    if tokenizer.native is None:
        raise SystemExit("the native encoder was not built, or does not cover this tokenizer")
    forms = encoders(tokenizer, folder)
    speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
    limits = []
    for texts in rounds:
        expected = tokenizer.processor.encode(texts)
        for (form, threads), encode in forms.items():
            part = texts[: -(-len(texts) // 4)] if "tokenizers" in form else texts
            size = megabytes(part)
            gc.collect()
            start = time.perf_counter()
            found = encode(part)
            seconds = time.perf_counter() - start
            speeds[form, threads].append(size / seconds)
            check(form, found, expected[: len(part)])
            del found  # not within the next one's time
        limits.append(2 * by_processes(tokenizer, texts, 1) / by_processes(tokenizer, texts, 2))
    print(f"{folder.name}: {len(tokenizer):,} pieces, {len(rounds)} rounds of {len(rounds[0]):,} {name}")
    print(f"{'':<28}{'1 thread':>9}{'2 threads':>10}{'times':>7}")
    middle = {key: statistics.median(values) for key, values in speeds.items()}
    for form in dict.fromkeys(form for form, _ in forms):
        one, two = middle[form, 1], middle.get((form, 2))
        print(f"{form:<28}{one:>9.1f}" + (f"{two:>10.1f}{two / one:>7.2f}" if two else ""))
    print(f"{'limit':<44}{statistics.median(limits):>10.2f}")
    for suffix, ours in ("", "arrays"), ("", "batch"), (ALONE, f"encode{ALONE}"):
        for other in ("sentencepiece" + suffix, "tokenizers" + suffix):
            ratios = [
                statistics.median(a / b for a, b in zip(speeds[ours, threads], speeds[other, threads], strict=True))
                for threads in (1, 2)
                if (ours, threads) in forms
            ]
            print(f"{f'{ours} / {other}':<46}" + "".join(f"{ratio:>9.2f}" for ratio in ratios), flush=True)


def encoders(tokenizer: Tokenizer, folder: Path) -> dict[tuple[str, int], Callable[[list[str]], Any]]:
    """(form, threads) → the encoding of texts by it."""
    processor = tokenizer.processor
    other = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def one_by_tokenizers(text: str) -> list[int]:
        return other.encode(text, add_special_tokens=False).ids

    def by_tokenizers(texts: list[str], parallel: bool) -> list[list[int]]:
        os.environ["TOKENIZERS_PARALLELISM"] = str(parallel).lower()
        return [encoding.ids for encoding in other.encode_batch_fast(texts, add_special_tokens=False)]

    return {
        ("arrays", 1): lambda texts: tokenizer.arrays(texts),
        ("sentencepiece", 1): lambda texts: processor.encode(texts, num_threads=1),
        ("arrays", 2): lambda texts: tokenizer.arrays(texts, threads=2),
        ("sentencepiece", 2): lambda texts: processor.encode(texts, num_threads=2),
        ("batch", 1): lambda texts: tokenizer.batch(texts),
        ("batch", 2): lambda texts: tokenizer.batch(texts, threads=2),
        ("encode" + ALONE, 1): lambda texts: [tokenizer.encode(text) for text in texts],
        ("sentencepiece" + ALONE, 1): lambda texts: [processor.encode(text) for text in texts],
        ("tokenizers", 1): lambda texts: by_tokenizers(texts, False),
        ("tokenizers", 2): lambda texts: by_tokenizers(texts, True),
        ("tokenizers" + ALONE, 1): lambda texts: list(map(one_by_tokenizers, texts)),
    }


def check(form: str, found: Any, expected: list[list[int]]) -> None:
    if form == "arrays":
        ids, lengths = found
        same = lengths.tolist() == list(map(len, expected)) and ids.tolist() == [*itertools.chain(*expected)]
    else:
        same = found == expected
    if not same:
        raise SystemExit(f"{form}: the ids differ")


def by_processes(tokenizer: Tokenizer, texts: list[str], count: int) -> float:
    """Seconds until the slowest of `count` processes that start together has encoded all of the texts."""
    context = multiprocessing.get_context("fork")
    barrier, seconds = context.Barrier(count), context.Queue()

    def work() -> None:
        tokenizer.arrays(texts)  # so that the memory is the process's own
        barrier.wait()
        start = time.perf_counter()
        tokenizer.arrays(texts)
        seconds.put(time.perf_counter() - start)

    together = [context.Process(target=work) for _ in range(count)]
    for process in together:
        process.start()
    slowest = max(seconds.get() for _ in together)
    for process in together:
        process.join()
    return slowest


def megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def take(lines: Iterator[str], num_bytes: float, joined: bool) -> list[str]:
    """The next lines, of about `num_bytes`; joined to documents of about 1 MB where asked."""
    taken: list[str] = []
    ends = [0]  # bytes up to each line, and to the end of the last one
    for line in lines:
        taken.append(line)
        ends.append(ends[-1] + len(line.encode()))
        if ends[-1] >= num_bytes:
            break
    if ends[-1] < num_bytes:
        raise SystemExit("the files hold too little text for so many rounds")
    if not joined:
        return taken
    borders = np.searchsorted(ends, np.linspace(0, ends[-1], round(num_bytes / 1e6) + 1))
    return ["\n".join(taken[a:b]) for a, b in itertools.pairwise(borders)]


if __name__ == "__main__":
    main()
