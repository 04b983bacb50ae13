"""Which entries of a corpus came before, told from files of 64-bit hashes in memory that does not grow with them.

A document is dropped where it shares its text's hash, or any band of its MinHash, with an earlier one in the order of
the recipe. So the result hangs on that order alone, not on who did which part when, and no graph of clusters is needed.
"""

import hashlib
from pathlib import Path

import numpy as np

from janeox.config import CorpusConfig

PART = 1 << 22
"""Hashes that are sorted at once: about 100 MB."""


def kinds(config: CorpusConfig) -> list[tuple[str, int]]:
    """(kind of hash, its columns) by which a recipe tells repetition."""
    asked = [("text", 1, True), ("near", config.minhash_bands, config.near_duplicates)]
    asked.append(("line", 1, bool(config.repeated_lines)))
    return [(kind, columns) for kind, columns, wanted in asked if wanted]


def num_parts(files: list[Path]) -> int:
    """Into how many parts the range of these hashes is cut, so that each fits in memory."""
    return max(1, -(-sum(file.stat().st_size for file in files) // 8 // PART))


def read_array(file: Path) -> np.ndarray:
    """The uint64 values of a file, mapped into memory."""
    return np.memmap(file, np.uint64, "r") if file.stat().st_size else np.empty(0, np.uint64)


def repeats_in(files: list[Path], part: int) -> np.ndarray:
    """Places of the entries whose hash, in one part of the range, an earlier entry has too.

    Args:
        files: of uint64; places count through all of them.

    Returns:
        sorted uint64. Hash 0 stands for none and repeats nothing.
    """
    parts = num_parts(files)
    hashes, places, start = [], [], 0
    for file in files:
        found = read_array(file)
        inside = np.flatnonzero((found >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32) == part)
        hashes.append(found[inside])
        places.append(inside + start)
        start += len(found)
    keys, where = np.concatenate(hashes), np.concatenate(places)
    order = np.argsort(keys, kind="stable")
    keys, where = keys[order], where[order]
    again = np.flatnonzero((keys[1:] == keys[:-1]) & (keys[1:] != 0)) + 1
    return np.sort(where[again]).astype(np.uint64)


def is_repeat(files: list[Path], start: int, count: int) -> np.ndarray:
    """Whether each of `count` entries from place `start` on is in any of the files that `repeats_in` made."""
    flags = np.zeros(count, bool)
    for file in files:
        places = read_array(file)
        first, last = np.searchsorted(places, (start, start + count))
        flags[places[first:last].astype(np.int64) - start] = True
    return flags


def line_hashes(text: str, min_chars: int) -> np.ndarray:
    """uint64, one for each line of at least `min_chars` characters."""
    lines = [line.encode("utf-8", "surrogatepass") for line in text.split("\n") if len(line) >= min_chars]
    digests = b"".join(hashlib.blake2b(line, digest_size=8).digest() for line in lines)
    return np.frombuffer(digests, ">u8").astype(np.uint64)
