"""Which documents and lines of a corpus came before, told from the hashes of its pieces, part by part of their range.

A document is dropped where it shares its text's hash, or any band of its MinHash, with an earlier one in the order of
the recipe. So the result hangs on that order alone, not on who did which part when, and no graph of clusters is needed.
"""

import os
from bisect import bisect_left
from pathlib import Path

import numpy as np

from janeox.corpus.pieces import ENTRY

PART = 1 << 18
"""Hashes that a task holds, 4 MB."""
SORTED = 1 << 15
"""Hashes of these that are sorted at once, since that takes several times their memory."""
SIZES = 40
"""How many sizes of groups are told apart: 2, 3 to 4, 5 to 8, and so on."""


def num_parts(files: list[Path]) -> int:
    """Into how many parts the range of these hashes is cut, so that each fits in memory."""
    return max(1, -(-sum(file.stat().st_size for file in files) // ENTRY.itemsize // PART))


def find_repeats(files: list[Path], part: int, parts: int, out: Path) -> None:
    """Writes which places hold a hash, of one part of the range, that an earlier piece has too.

    Args:
        files: each piece's `ENTRY` rows, in the order of the recipe.
        out: gets `SIZES` numbers of groups of equal hashes by size, the start of each piece's places and the end of the
            last, all uint64; then the places in their piece, uint32, sorted within the piece.
    """
    low, high = part * 2**64 // parts, (part + 1) * 2**64 // parts
    held, ends = bytearray(), []
    for file in files:
        held += _stretch(file, low, high)
        ends.append(len(held) // ENTRY.itemsize)
    entries = np.frombuffer(held, ENTRY)
    hashes = entries["hash"]
    sizes, found = np.zeros(SIZES, np.uint64), []
    cuts = 1 + len(entries) // SORTED
    for cut in range(cuts):
        first, end = (low + (high - low) * (cut + more) // cuts for more in (0, 1))
        those = np.flatnonzero((hashes >= np.uint64(first)) & (hashes <= np.uint64(end - 1)))
        those = those[np.argsort(hashes[those], kind="stable")]  # equal hashes: the earliest piece first
        new = np.ones(len(those), bool)
        new[1:] = hashes[those[1:]] != hashes[those[:-1]]
        sizes += _group_sizes(entries["count"][those], new)
        again = those[~new]
        pieces = np.searchsorted(ends, again, side="right").astype(np.uint64)
        found.append(pieces << np.uint64(32) | entries["place"][again])
    places = np.unique(np.concatenate(found))
    starts = np.searchsorted(places, np.arange(len(files) + 1, dtype=np.uint64) << np.uint64(32))
    with out.open("wb") as stream:
        sizes.tofile(stream)
        starts.astype(np.uint64).tofile(stream)
        places.astype(np.uint32).tofile(stream)


def _stretch(file: Path, low: int, high: int) -> bytes:
    """A piece's rows with hashes from `low` to below `high`. Not mapped, since mapped pages count as memory held."""
    with file.open("rb", buffering=0) as stream:
        number, size = stream.fileno(), ENTRY.itemsize

        def hash_of(row: int) -> int:
            return int.from_bytes(os.pread(number, 8, row * size), "little")

        rows = range(os.fstat(number).st_size // size)
        first = bisect_left(rows, low, key=hash_of)
        end = bisect_left(rows, high, first, key=hash_of)
        return os.pread(number, (end - first) * size, first * size)


def _group_sizes(counts: np.ndarray, new: np.ndarray) -> np.ndarray:
    if not len(counts):
        return np.zeros(SIZES, np.uint64)
    sizes = np.add.reduceat(counts.astype(np.uint64), np.flatnonzero(new))
    return np.bincount(np.ceil(np.log2(sizes[sizes > 1])).astype(np.int64), minlength=SIZES).astype(np.uint64)


def repeats_of(file: Path, piece: int, num_pieces: int) -> np.ndarray:
    """The places of one piece in a file that `find_repeats` wrote."""
    with file.open("rb", buffering=0) as stream:
        first, end = np.frombuffer(os.pread(stream.fileno(), 16, 8 * (SIZES + piece)), np.uint64).tolist()
        start = 8 * (SIZES + num_pieces + 1) + 4 * first
        return np.frombuffer(os.pread(stream.fileno(), 4 * (end - first), start), np.uint32)


def group_sizes(file: Path) -> dict[str, int]:
    """Groups of equal hashes by size, as `find_repeats` counted them: the largest size of a class → groups."""
    counts = np.fromfile(file, np.uint64, SIZES).tolist()
    return {str(2**place): count for place, count in enumerate(counts) if count}
