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


@cache
def table() -> np.ndarray:
    """(65536 + 17,) uint16: the bits of each character of the Basic Multilingual Plane, then of each plane."""
    characters = "".join(chr(code) for code in range(1 << 16)) + "".join(chr(plane << 16) for plane in range(17))
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


def _places(pattern: str, characters: str) -> list[int]:
    return [match.start() for match in re.finditer(pattern, characters)]


def bits(text: str) -> np.ndarray:
    """(characters,) uint16: the table's entry of each character."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return table()[np.where(codes < 1 << 16, codes, (1 << 16) + (codes >> 16))]


def share(kinds: np.ndarray, *names: str) -> int:
    """How many of `bits(text)` are of one of these kinds."""
    return int(np.count_nonzero(kinds & sum(BIT[name] for name in names)))
