"""What each character is to the rules, as bits of one table that Python and the native library share.

Scripts are ranges of Unicode. Beyond the Basic Multilingual Plane one entry serves a whole plane: planes 2 and 3 are
kanji, the rest (emoji, historic scripts) is none of the kinds below.
"""

import re
from functools import cache

import numpy as np

from janeox.corpus.words import CLASSES

KINDS = {
    "hiragana": "[ぁ-ゟ]",
    "japanese": "[゠-ヿㇰ-ㇿｦ-ﾟ、-〟々㐀-鿿豈-\ufaff\U00020000-\U0003ffff！？（）]",
    "white": r"\s",
    # As quality.py of the Swallow corpus, version 1, counts letters.
    "hiragana_letter": "[ぁ-ゖ]",
    "katakana_letter": "[ァ-ヺ]",
    "other_letter": "[々〇〻㐀-鿿豈-\ufaff\U00020000-\U0010ffff、，。．！？]",
    "kana": "[ぁ-んァ-ン]",
    "sentence_end": "[。．！？!?]",
    # As datatrove's filters call them; its list has more, of scripts that no Japanese text is written in.
    "line_end": "[.!?。．｡！？‼‽⁇⁈⁉﹒﹖﹗]",
    "symbol": "[\0-\x08\x0b-\x1f\x7f-\x9f!-/:-@\\[-`{-~«»´–—’“”„…"
    "‼‽⁇⁈⁉∶━►、。〈〉《》「」【】﹒﹖﹗！％（），．１：；？～｡]",
    "stop_word": "[のにをはたてがとで年し・月れさ]",
}
"""Each kind that has a bit, in the order of the bits, with its characters. `japanese` leaves out the hiragana."""
BIT = {name: 1 << place for place, name in enumerate(KINDS)}
ALPHABETIC = 1 << len(KINDS)
"""`str.isalpha`."""
WORD_SHIFT = len(KINDS) + 1
"""Above it, three bits: the number of the character's class in `words.CLASSES`, from 1."""


SCRIPTS = {
    "hiragana": KINDS["hiragana"],
    "katakana": "[゠-ヿㇰ-ㇿｦ-ﾟ]",
    "kanji": "[々〇㐀-鿿豈-\ufaff\U00020000-\U0003ffff]",
    "latin": "[A-Za-zÀ-ÖØ-öø-ɏＡ-Ｚａ-ｚ]",
}
"""What reports call the script of a character; all others (digits, marks, spaces) are `other`."""


@cache
def table() -> np.ndarray:
    """(65536 + 17,) uint16: the bits of each character of the Basic Multilingual Plane, then of each plane."""
    characters = _entries()
    bits = np.zeros(len(characters), dtype=np.uint16)
    alphabetic = np.fromiter((char.isalpha() for char in characters), bool, len(characters))
    alphabetic[1 << 16 :] = False
    classes = np.zeros(len(characters), dtype=np.uint16)
    for number, pattern in enumerate(CLASSES.values(), 1):
        classes[_places(pattern, characters)] = number
    for name, pattern in KINDS.items():
        bits[_places(pattern, characters)] |= BIT[name]
    alphabetic[(1 << 16) + 2 : (1 << 16) + 4] = True
    bits |= np.where(alphabetic, ALPHABETIC, 0).astype(np.uint16)
    return bits | classes << WORD_SHIFT


@cache
def _entries() -> str:
    """One character for each entry of a table."""
    return "".join(map(chr, range(1 << 16))) + "".join(chr(plane << 16) for plane in range(17))


@cache
def _script_table() -> np.ndarray:
    numbers = np.zeros((1 << 16) + 17, dtype=np.uint8)
    for number, pattern in enumerate(SCRIPTS.values(), 1):
        numbers[_places(pattern, _entries())] = number
    return numbers


def script_counts(text: str) -> dict[str, int]:
    """Characters of the text by script."""
    counts = np.bincount(_look_up(_script_table(), text), minlength=len(SCRIPTS) + 1).tolist()
    return dict(zip(("other", *SCRIPTS), counts, strict=True))


def _places(pattern: str, characters: str) -> list[int]:
    return [match.start() for match in re.finditer(pattern, characters)]


def bits(text: str) -> np.ndarray:
    """(characters,) uint16: the table's entry of each character."""
    return _look_up(table(), text)


def _look_up(entries: np.ndarray, text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return entries[np.where(codes < 1 << 16, codes, (1 << 16) + (codes >> 16))]


def share(kinds: np.ndarray, *names: str) -> int:
    """How many of `bits(text)` are of one of these kinds."""
    return int(np.count_nonzero(kinds & sum(BIT[name] for name in names)))
