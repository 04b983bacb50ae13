"""The figures that rules ask for by name, each group computed when first needed, natively where the library is."""

import ctypes
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np

from janeox.corpus.characters import table
from janeox.corpus.measures import LINES, NGRAMS, WORDS, line_figures, ngram_figures, word_figures
from janeox.corpus.words import FUNCTION_WORDS
from janeox.native import library

COMPRESSION = "compressed size, as a share"
WHAT = {**LINES, **NGRAMS, **WORDS, "compression": COMPRESSION}
"""What each figure is, by name. `NAME_words` besides, for a list of words: how often one of them occurs."""

_GROUPS: tuple[tuple[str, dict[str, str], Callable[[str], list[float]]], ...] = (
    ("lines", LINES, line_figures),
    ("ngrams", NGRAMS, ngram_figures),
    ("words", WORDS, word_figures),
)
_GROUP_OF = {name: group for group in _GROUPS for name in group[1]}


class Figures:
    """`Figures(text)[name]`, the figure of that name in `WHAT`."""

    def __init__(self, text: str):
        self.text = text
        self._known: dict[str, float] = {}
        self._encoded: bytes | None = None

    def __getitem__(self, name: str) -> float:
        if name not in self._known:
            if name == "compression":
                self._known[name] = len(zlib.compress(self.encoded, level=9)) / max(1, len(self.encoded))
            else:
                group, names, python = _GROUP_OF[name]
                call = _native(group)
                figures = python(self.text) if call is None else _figures(call, self.encoded, len(names))
                self._known.update(zip(names, figures, strict=True))
        return self._known[name]

    @property
    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = self.text.encode("utf-8")
        return self._encoded


def _figures(call: Callable[..., None], encoded: bytes, count: int) -> list[float]:
    out = (ctypes.c_double * count)()
    words = _function_words()
    call(encoded, len(encoded), table().ctypes.data, words.ctypes.data, len(words), out)
    return list(out)


@cache
def _native(group: str) -> Callable[..., None] | None:
    loaded = library()
    if loaded is None:
        return None
    call: Callable[..., None] = getattr(loaded, f"janeox_{group}_figures")
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    call.restype, call.argtypes = None, [ctypes.c_char_p, number, pointer, pointer, number, pointer]  # type: ignore[attr-defined]
    return call


@cache
def _function_words() -> np.ndarray:
    """Each function word's hiragana as 7 bits each, the first in the highest; sorted."""
    packed = []
    for word in FUNCTION_WORDS:
        value = 0
        for char in word:
            value = value << 7 | ord(char) - 0x3040
        packed.append(value)
    return np.array(sorted(packed), dtype=np.uint64)
