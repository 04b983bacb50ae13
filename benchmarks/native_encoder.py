"""Speed of encoding into arrays, the native encoder and sentencepiece's own call in turn, and whether the ids agree.

    python -m benchmarks.native_encoder FOLDER FILE … [--rounds 5] [--megabytes 8]

FOLDER holds a tokenizer, FILE is UTF-8 text or JSON lines with a `text`, plain or .xz or .gz. Each round takes lines
that no earlier round had, since repeated text flatters caches. MB is 10^6 bytes of UTF-8.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import header
from benchmarks.tokenizer_agreement import read_lines
from janeox.tokenizer import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=8, help="of text a round")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.load(arguments.folder)
    if tokenizer.native is None:
        raise SystemExit("the native encoder was not built, or does not cover this tokenizer")
    lines = (line for file in arguments.files for line in read_lines(file))
    print(header())
    print(f"{len(tokenizer):,} pieces\n{'texts':<16}{'threads':>8}{'native MB/s':>13}{'sentencepiece':>15}{'ratio':>7}")
    for name, joined in (("lines", False), ("1 MB documents", True)):
        for threads in (1, 2):
            native, other = [], []
            for _ in range(arguments.rounds):
                texts = take(lines, arguments.megabytes * 1e6, joined)
                size = sum(len(text.encode()) for text in texts) / 1e6
                start = time.perf_counter()
                ids, lengths = tokenizer.arrays(texts, threads=threads)
                middle = time.perf_counter()
                expected = tokenizer.processor.encode(texts, num_threads=threads)
                native.append(size / (middle - start))
                other.append(size / (time.perf_counter() - middle))
                if lengths.tolist() != list(map(len, expected)) or ids.tolist() != [i for row in expected for i in row]:
                    raise SystemExit("the ids differ")
            fast, slow = statistics.median(native), statistics.median(other)
            print(f"{name:<16}{threads:>8}{fast:>13.1f}{slow:>15.1f}{fast / slow:>7.1f}", flush=True)


def take(lines, num_bytes: float, joined: bool) -> list[str]:
    """The next lines, of about `num_bytes`; joined to documents of about 1 MB where asked."""
    taken, size = [], 0
    for line in lines:
        taken.append(line)
        size += len(line.encode())
        if size >= num_bytes:
            break
    if not taken or size < num_bytes:
        raise SystemExit("the files hold too little text for so many rounds")
    if not joined:
        return taken
    borders = np.linspace(0, len(taken), round(num_bytes / 1e6) + 1).astype(int)
    return ["\n".join(taken[a:b]) for a, b in itertools.pairwise(borders)]


if __name__ == "__main__":
    main()
