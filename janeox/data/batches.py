"""Training batches as a pure function of (seed, step): no state, no index array, the same on any number of ranks.

The token files of a source form one stream, cut into windows of `sequence_length` inputs and the token after them.
Every epoch visits all windows of a source once, in an order given by a keyed permutation that is computed, not stored.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from janeox.data.shards import ShardFile, Shards
from janeox.errors import JaneoxError

PATTERN = 1024  # rows over which the mixing weights are met exactly


@dataclass
class Stream:
    """The windows of some token files, numbered through; a window never runs over the end of a file."""

    files: list[np.ndarray]
    counts: list[int]
    """Windows in each file."""

    @property
    def num_windows(self) -> int:
        return sum(self.counts)

    def window(self, index: int, length: int) -> np.ndarray:
        """(length + 1,) ids."""
        for tokens, count in zip(self.files, self.counts, strict=True):
            if index < count:
                return tokens[index * length : (index + 1) * length + 1]
            index -= count
        raise IndexError(index)


class Batches:
    """Batches of the training split.

    Args:
        weights: share of the rows from each source; empty mixes by size (every window once an epoch).
        batch_rows: rows of a batch over all ranks.

    Raises:
        JaneoxError: a weight names no source, or a source is shorter than one row.
    """

    def __init__(self, shards: Shards, weights: dict[str, float], sequence_length: int, batch_rows: int, seed: int):
        self.shards, self.sequence_length, self.batch_rows, self.seed = shards, sequence_length, batch_rows, seed
        sources = {source: self._stream(shards, files) for source, files in shards.by_source("train")}
        for source in weights:
            if source not in sources:
                raise JaneoxError(f"data.weights names {source!r}; the shards have {', '.join(sources)}")
        if weights:
            chosen = {source: sources[source] for source, weight in weights.items() if weight > 0}
            shares = np.array([weights[source] for source in chosen])
        else:
            merged = Stream(
                [f for s in sources.values() for f in s.files], [c for s in sources.values() for c in s.counts]
            )
            chosen, shares = {"": merged}, np.ones(1)
        for source, stream in chosen.items():
            if stream.num_windows == 0:
                name = f"source {source!r}" if source else "the training split"
                raise JaneoxError(
                    f"{shards.folder}: {name} is shorter than one row (data.sequence_length = {sequence_length})"
                )
        if not len(shares) or shares.sum() <= 0:
            raise JaneoxError("data.weights: at least one weight must be above 0")
        self.streams = list(chosen.values())
        self._which, self._rank_in_source, self._per_pattern = _pattern(shares / shares.sum(), seed)

    def _stream(self, shards: Shards, files: list[ShardFile]) -> Stream:
        tokens = [shards.tokens(file) for file in files]
        return Stream(tokens, [max(0, (len(t) - 1) // self.sequence_length) for t in tokens])

    @property
    def windows_per_epoch(self) -> int:
        return sum(stream.num_windows for stream in self.streams)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """This rank's rows of batch `step` (from 0): (batch_rows / world_size, sequence_length + 1) int64.

        Raises:
            JaneoxError: an id that the vocabulary does not have.
        """
        first = step * self.batch_rows
        rows = range(first + rank, first + self.batch_rows, world_size)
        ids = np.stack([self.row(row) for row in rows]).astype(np.int64)
        if ids.max() >= self.shards.vocab_size or ids.min() < 0:  # a GPU would only say that an index is out of bounds
            raise JaneoxError(
                f"{self.shards.folder}: damaged, ids from {ids.min()} to {ids.max()} in a vocabulary of "
                f"{self.shards.vocab_size}; tokenize again"
            )
        return ids

    def row(self, number: int) -> np.ndarray:
        """Row `number` of the endless sequence of rows, (sequence_length + 1,) ids."""
        block, place = divmod(number, PATTERN)
        source = int(self._which[place])
        drawn = block * int(self._per_pattern[source]) + int(self._rank_in_source[place])  # earlier rows of this source
        stream = self.streams[source]
        epoch, index = divmod(drawn, stream.num_windows)
        return stream.window(permute(index, stream.num_windows, (self.seed, source, epoch)), self.sequence_length)


def _pattern(shares: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which source each of PATTERN successive rows takes, how many rows of that source stand before it, and totals."""
    counts = np.floor(shares * PATTERN).astype(int)
    for source in np.argsort(counts - shares * PATTERN, kind="stable")[: PATTERN - counts.sum()]:
        counts[source] += 1
    ordered = np.repeat(np.arange(len(shares)), counts)
    which = ordered[[permute(i, PATTERN, (seed, "pattern")) for i in range(PATTERN)]]
    rank = np.zeros(PATTERN, int)
    for source in range(len(shares)):
        places = np.flatnonzero(which == source)
        rank[places] = np.arange(len(places))
    return which, rank, counts


def permute(index: int, size: int, key: tuple[int | str, ...]) -> int:
    """Place of `index` under a pseudo-random permutation of range(size) chosen by `key`.

    A four-round Feistel network on the smallest even number of bits that holds `size`; places outside are walked on
    until one lies inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    half = max(1, (max(1, size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    digest = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
    rounds = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 32, 8)]
    while True:
        left, right = index >> half, index & mask
        for round_key in rounds:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x &= 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)
