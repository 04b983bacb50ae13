"""Time and peak memory of training a tokenizer of 32,000 pieces.

    python -m benchmarks.tokenizer_training FILE … [--megabytes 12 100] [--normalization identity] [--out FOLDER]

FILE is a corpus file in any format that janeox reads; lines are taken from the files in turn. Each size is trained in a
process of its own, whose memory includes the text. MB is 10^6 bytes of UTF-8.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import time
from pathlib import Path

from benchmarks.machine import header
from benchmarks.tokenizer_agreement import read_lines
from janeox.config import TokenizerConfig
from janeox.tokenizer.train import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--megabytes", type=float, nargs="+", default=[12, 100])
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--normalization", default="identity")
    parser.add_argument("--out", type=Path, help="the tokenizer of the last size is saved here")
    arguments = parser.parse_args()
    print(header())
    print(f"{len(os.sched_getaffinity(0))} of the cores; {arguments.vocab_size:,} pieces, {arguments.normalization}")
    print(f"{'text MB':>8}{'seconds':>10}{'CPU seconds':>13}{'peak GB':>9}")
    for size in arguments.megabytes:
        config = TokenizerConfig(arguments.vocab_size, normalization=arguments.normalization, sample_chars=10**12)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            wall, cpu, peak = pool.apply(trained, (arguments.files, size * 1e6, config, arguments.out))
        print(f"{size:>8g}{wall:>10.1f}{cpu:>13.1f}{peak / 1e9:>9.2f}", flush=True)


def trained(files: list[Path], num_bytes: float, config: TokenizerConfig, out: Path | None) -> tuple[float, float, int]:
    """(seconds, CPU seconds, peak bytes of memory); reading the files is not timed."""
    lines = first_lines(files, num_bytes)
    wall, cpu = time.perf_counter(), time.process_time()
    tokenizer = train_tokenizer(lines, config)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if out:
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
    return wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def first_lines(files: list[Path], num_bytes: float) -> list[str]:
    """About `num_bytes` of text, a line of each file in turn."""
    lines = []
    for line in in_turn(map(read_lines, files)):
        lines.append(line)
        num_bytes -= len(line.encode())
        if num_bytes <= 0:
            return lines
    raise SystemExit("the files hold too little text")


def in_turn(sources):
    """One of each source after the other; those that have ended are left out."""
    end = object()
    rounds = itertools.zip_longest(*sources, fillvalue=end)
    return (line for round_ in rounds for line in round_ if line is not end)


if __name__ == "__main__":
    main()
