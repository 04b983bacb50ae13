"""Which documents and lines of a corpus came before, told from the hashes of its pieces, part by part of their range.

A document is dropped where it shares its text's hash, or any band of its MinHash, with an earlier one in the order of
the recipe. So the result hangs on that order alone, not on who did which part when, and no graph of clusters is needed.
"""

from bisect import bisect_left
from pathlib import Path

import numpy as np

from janeox.corpus.pieces import ENTRY, read_array

PART = 1 << 19
"""Hashes that are sorted at once: about 30 MB."""
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
    low, high = (part * 2**64 // parts, (part + 1) * 2**64 // parts)
    stretches = []
    for file in files:
        entries = read_array(file, ENTRY)
        first, end = (bisect_left(entries["hash"], bound, key=int) for bound in (low, high))
        stretches.append(np.array(entries[first:end]))
    pieces = np.repeat(np.arange(len(files), dtype=np.uint32), [len(stretch) for stretch in stretches])
    entries = np.concatenate(stretches)
    order = np.argsort(entries["hash"], kind="stable")  # equal hashes: the earliest piece first
    entries, pieces = entries[order], pieces[order]
    new = np.ones(len(entries), bool)
    new[1:] = entries["hash"][1:] != entries["hash"][:-1]
    found = np.unique(pieces[~new].astype(np.uint64) << np.uint64(32) | entries["place"][~new])
    starts = np.searchsorted(found, np.arange(len(files) + 1, dtype=np.uint64) << np.uint64(32))
    with out.open("wb") as stream:
        _group_sizes(entries["count"], new).tofile(stream)
        starts.astype(np.uint64).tofile(stream)
        found.astype(np.uint32).tofile(stream)


def _group_sizes(counts: np.ndarray, new: np.ndarray) -> np.ndarray:
    if not len(counts):
        return np.zeros(SIZES, np.uint64)
    sizes = np.add.reduceat(counts.astype(np.uint64), np.flatnonzero(new))
    return np.bincount(np.ceil(np.log2(sizes[sizes > 1])).astype(np.int64), minlength=SIZES).astype(np.uint64)


def repeats_of(file: Path, piece: int, num_pieces: int) -> np.ndarray:
    """The places of one piece in a file that `find_repeats` wrote."""
    with file.open("rb") as stream:
        stream.seek(8 * (SIZES + piece))
        first, end = np.fromfile(stream, np.uint64, 2).tolist()
        stream.seek(8 * (SIZES + num_pieces + 1) + 4 * first)
        return np.fromfile(stream, np.uint32, end - first)


def group_sizes(file: Path) -> dict[str, int]:
    """Groups of equal hashes by size, as `find_repeats` counted them: the largest size of a class → groups."""
    counts = np.fromfile(file, np.uint64, SIZES).tolist()
    return {str(2**place): count for place, count in enumerate(counts) if count}
