"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998), and hashes of text.

Japanese has no spaces between words, so what is compared are the sets of a text's runs of `minhash_chars` letters. Two
texts whose sets have Jaccard similarity s agree in all rows of some band with probability 1 - (1 - s^rows)^bands.
"""

import re
import unicodedata
from functools import cache

import numpy as np

BASE = 0x9E3779B97F4A7C15
"""Odd, so that multiplication by it loses nothing modulo 2^64."""
BLOCK = 1 << 14
"""Products made at once, so that they stay in the cache."""
_NO_LETTER = re.compile(r"[\W_]+")


def letters(text: str) -> str:
    """What is compared of a text: NFKC, lower case, letters and digits only."""
    return only_letters(folded(text))


def folded(text: str) -> str:
    """NFKC, lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def only_letters(text: str) -> str:
    return _NO_LETTER.sub("", text)


def window_hashes(text: str, length: int) -> np.ndarray:
    """A 64-bit hash of each run of `length` characters, uint64 [len(text) - length + 1]; empty if it is shorter.

    The polynomial of a run is put together from those of runs half as long, so the work grows with log(length).
    """
    part = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    count = len(part) - length + 1
    if count <= 0:
        return part[:0]
    whole, done, width, factor = part[:count] * np.uint64(0), 0, 1, BASE  # `part` holds the runs of `width`
    while True:
        if length & width:
            whole = whole * np.uint64(factor) + part[done : done + count]
            done += width
        if done == length:
            return mixed(whole)
        part = part[:-width] * np.uint64(factor) + part[width:]
        width, factor = 2 * width, factor * factor % 2**64


def mixed(values: np.ndarray) -> np.ndarray:
    """MurmurHash3's finalizer: every bit of the result hangs on every bit of the value."""
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(multiplier)
    return values ^ (values >> np.uint64(33))


@cache
def _hash_functions(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors (odd) and summands of `count` hash functions x → a·x + b modulo 2^32, each uint32 [count, 1].

    32 bits, because processors multiply many of them at once.
    """
    draw = np.random.Generator(np.random.PCG64(0)).integers(0, 2**32, (2, count, 1), np.uint32)
    return draw[0] | np.uint32(1), draw[1]


def band_keys(text: str, chars: int, bands: int, rows: int) -> np.ndarray:
    """One key a band, uint64 [bands]: texts with an equal key in any band are taken for near-duplicates.

    0, which is no key, in all bands of a text without letters.
    """
    compared = letters(text)
    if not compared:
        return np.zeros(bands, np.uint64)
    grams = (window_hashes(compared, min(chars, len(compared))) >> np.uint64(32)).astype(np.uint32)
    factors, summands = _hash_functions(bands * rows)
    smallest = np.full(bands * rows, 2**32 - 1, np.uint32)
    for start in range(0, len(grams), BLOCK):
        part = grams[start : start + BLOCK]
        hashed = np.empty_like(part)
        for place in range(bands * rows):
            np.multiply(part, factors[place], out=hashed)
            np.add(hashed, summands[place], out=hashed)
            smallest[place] = min(smallest[place], hashed.min())
    keys = np.zeros(bands, np.uint64)
    for row in smallest.reshape(bands, rows).T:
        keys = mixed(keys * np.uint64(BASE) + row)
    return np.maximum(keys, np.uint64(1))
