"""How fast the kernels' threads read weights in pages of 2 MB, and in those of a mapped file, in turn.

    python -m benchmarks.pages FILE [--rounds 15]

FILE: a large packed.safetensors; its first GB is read. Prints GB/s and the median of the rounds' ratios.
"""

import argparse
import statistics
from pathlib import Path

import torch

from benchmarks.machine import header
from janeox.engine.native_library import NativeEngine
from janeox.engine.pages import read_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(header())
    size = min(options.file.stat().st_size, 1 << 30)
    mapped = torch.from_file(str(options.file), shared=True, size=size, dtype=torch.uint8)
    read = read_file(options.file)[:size]
    print(f"{'threads':>7}{'mapped':>10}{'2 MB':>10}{'ratio':>8}   (lowest, highest)")
    for threads in (1, 2):
        engine = NativeEngine(threads)
        speeds: dict[int, list[float]] = {0: [], 1: []}
        for number in range(options.rounds + 1):  # the first touches all pages
            for place in (0, 1) if number % 2 else (1, 0):
                seconds = engine.library.janeox_read(engine.handle, (mapped, read)[place].data_ptr(), size)
                if number:
                    speeds[place].append(size / seconds / 1e9)
        ratios = [b / a for a, b in zip(speeds[0], speeds[1], strict=True)]
        medians = "".join(f"{statistics.median(speed):>10.1f}" for speed in speeds.values())
        print(f"{threads:>7}{medians}{statistics.median(ratios):>8.2f}   ({min(ratios):.2f}, {max(ratios):.2f})")


if __name__ == "__main__":
    main()
