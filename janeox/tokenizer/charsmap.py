"""sentencepiece's compiled normalisation rules, spelled in the steps that `tokenizers` has.

sentencepiece goes through a text from left to right and replaces, at each place, the longest key of its rules.
`tokenizers` has a step for the same rules, `Precompiled`, which does something else: it looks up whole grapheme
clusters of up to five bytes and takes the first, shortest hit for all of the cluster, and else single characters.
With ｶﾞ, か followed by U+3099, ½ followed by U+FE0F or \\r\\n it parts ways with sentencepiece. Its Unicode NFC
and NFKC part ways too: they put marks into order, join what other rules produced, and know Unicode 12 where the rules
know Unicode 16.

So marks that neither `Precompiled` nor NFC sees across are put into the text, and taken out again:

1. `GLUE` goes between the characters of a key of several characters. In the usual rules those are what NFC composes.
2. `APART` goes before any other character that could compose with what precedes it, in place of what is dropped, and
   behind every character that is a key, so that no cluster holds anything beside it.
3. `Precompiled` then replaces single characters by the model's own rules.
4. NFC composes what was glued, and the marks go.

User-defined pieces, which the rules must not touch, stand aside meanwhile: each is a row of marks from before the first
step to behind the last.
"""

import base64
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

# Never assigned, part of no rule, and a border of grapheme clusters. A text that holds the first gets it back.
ESCAPE = "\ufff0"
ITSELF, GLUE, APART = (ESCAPE + mark for mark in "\ufff1\ufff2\ufff3")
DIGITS, END = "\ufff4\ufff5\ufff6\ufff7", "\ufff8"  # of the number of a user-defined piece
# Characters that compose since Unicode 13 to 16, in four scripts of the past: `tokenizers` does not know them.
NEWER = {
    chr(point)
    for first, last in ((0x105C9, 0x105E4), (0x11383, 0x113C8), (0x11938, 0x11938), (0x16121, 0x16128),
                        (0x16D68, 0x16D6A))
    for point in range(first, last + 1)
}  # fmt: skip

Step = dict[str, Any]


def replace(content: str, **pattern: str) -> Step:
    """The step that replaces a `regex` or a `string` by `content`."""
    return {"type": "Replace", "pattern": {kind.capitalize(): p for kind, p in pattern.items()}, "content": content}


@cache
def read_rules(charsmap: bytes) -> dict[str, str]:
    """Key → replacement. The layout is described in native/normalizer.h.

    Raises:
        ValueError: the rules are damaged.
    """
    try:
        (size,) = struct.unpack_from("<I", charsmap)
        units = np.frombuffer(charsmap, "<u4", size // 4, 4)
        texts = charsmap[4 + size :]
        # A child by a byte lies at (base ^ byte) and is labelled with it, so each unit tells its parent's base.
        inner = np.flatnonzero(units >> 31 == 0)
        children = defaultdict(list)
        for unit, base in zip(inner.tolist(), (inner ^ (units[inner] & 0xFF)).tolist(), strict=True):
            children[base].append(unit)
        bases = np.arange(len(units)) ^ ((units >> 10 & 0x1FFFFF) << ((units & 0x200) >> 6))
        ends, labels, values = (units >> 8 & 1).tolist(), (units & 0xFF).tolist(), units.tolist()
        rules: dict[str, str] = {}
        open_ = [(0, b"")]
        visited = 0
        while open_:
            node, key = open_.pop()
            visited += 1
            base = int(bases[node])
            if key and ends[node]:
                start = values[base] & 0x7FFFFFFF
                rules[key.decode("utf-8")] = texts[start : texts.index(b"\0", start)].decode("utf-8")
            if len(key) > 32 or visited > 1 << 20:
                raise ValueError("keys without an end")
            open_ += [(unit, key + bytes((labels[unit],))) for unit in children[base] if unit]
    except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"damaged normalisation rules: {error}") from error
    return rules


@cache
def steps(charsmap: bytes, kept: tuple[str, ...] = ()) -> list[Step]:
    """The steps that do what the rules do. Exact where every key of several characters composes (see the module).

    `kept` are the pieces that are found, the longest at each place, before the rules look there.

    Raises:
        ValueError: the rules are damaged, or a key runs into a kept piece.
    """
    rules = read_rules(charsmap)
    hide, show = _aside(kept, rules)
    single = {key for key in rules if len(key) == 1}
    several = [key for key in rules if len(key) > 1]
    odd = [key for key in several if rules[key] in NEWER or not _composes(key, rules)]
    glued = sorted(set(several).difference(odd))
    found = [replace(ITSELF, string=ESCAPE), *hide]
    if dropped := {key for key in single if not rules[key]}:
        found.append(replace(APART, regex=character_class(dropped)))
    if odd:
        odd.sort(key=lambda key: (-len(key), key))
        found.append(replace(APART, regex=rf"(?>{'|'.join(map(_escaped, odd))})\K"))
        found += [replace(rules[key], string=key) for key in odd]
    if glued:
        found.append(replace(GLUE, regex=_inside(glued)))
        could_compose = set(_followers()).union(key for key in single if rules[key][:1] in _followers())
        could_compose |= {character for key in glued for character in key[1:]}
        # Not at the text's beginning: nothing precedes there, and NFC panics over an insertion (tokenizers 0.23.3).
        found.append(replace(APART, regex=rf"(?<=[\s\S])(?<!{_escaped(GLUE)})(?={character_class(could_compose)})"))
    # A cluster of up to five bytes that begins with a key and holds more: a key of up to four.
    found.append(replace(APART, regex=f"(?<={character_class(k for k in single if k < chr(0x10000))})(?!{ESCAPE})"))
    found.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode("ascii")})
    if glued:
        found += [replace("", string=GLUE), {"type": "NFC"}]
    return [*found, replace("", string=APART), *show, replace(ESCAPE, string=ITSELF)]


def _aside(kept: tuple[str, ...], rules: dict[str, str]) -> tuple[list[Step], list[Step]]:
    """The steps that put the kept pieces aside, and those that bring them back; none where no rule could touch one."""
    if set("".join(rules)).isdisjoint("".join(kept)):
        return [], []
    ends = {key[at:] for key in rules for at in range(1, len(key))}
    for piece in kept:
        if any(piece.startswith(end) or end.startswith(piece) for end in ends):
            raise ValueError(f"the user-defined piece {piece!a} begins where a normalisation rule may go on")
    pieces = sorted((piece.replace(ESCAPE, ITSELF) for piece in kept), key=lambda piece: (-len(piece), piece))
    hide = [replace(ESCAPE + END, regex=rf"(?>{'|'.join(map(_escaped, pieces))})\K")]
    show = []
    for number, piece in enumerate(pieces):
        row = ESCAPE + np.base_repr(number, 4).translate(str.maketrans("0123", DIGITS)) + END
        hide.append(replace(row, string=piece + ESCAPE + END))
        show.append(replace(piece, string=row))
    return hide, show


def _composes(key: str, rules: dict[str, str]) -> bool:
    return unicodedata.normalize("NFC", "".join(rules.get(c, c) for c in key)) == rules[key]


@cache
def _followers() -> frozenset[str]:
    """Characters that composition or reordering could draw to the one before: marks, and second parts."""
    found = set()
    for character in map(chr, range(0x110000)):
        if unicodedata.combining(character):
            found.add(character)
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and parts[0][0] != "<":
            found.add(chr(int(parts[1], 16)))
    hangul = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))
    return frozenset(found | set(map(chr, hangul)))


def _inside(keys: Sequence[str]) -> str:
    """Matches between the characters of a key, whose beginnings must be keys too.

    A key never begins with what another goes on with, so what stands before a place tells whether it is inside.
    """
    after: dict[tuple[str, str], set[str]] = defaultdict(set)  # (beginning but its first character, next) → firsts
    for key in keys:
        after[key[1:-1], key[-1]].add(key[0])
    nexts: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)  # (the same, firsts) → next characters
    for (middle, next_), firsts in after.items():
        nexts[middle, frozenset(firsts)].add(next_)
    middles: dict[tuple[int, frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
    for (middle, first_set), nexts_here in nexts.items():
        middles[len(middle), first_set, frozenset(nexts_here)].append(middle)
    options = []
    any_next = character_class({key[-1] for key in keys})  # asked first: few places have one of these
    for (length, first_set, next_set), found in middles.items():
        between = (
            "" if length == 0 else character_class(found) if length == 1 else f"(?:{'|'.join(map(_escaped, found))})"
        )
        options.append(f"(?={character_class(next_set)})(?<={character_class(first_set)}{between})")
    return f"(?={any_next})(?:{'|'.join(sorted(options))})"


def character_class(characters: Iterable[str]) -> str:
    """The regular expression of one of these characters."""
    ranges: list[list[int]] = []
    for point in sorted(map(ord, characters)):
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "[" + "".join(f"\\x{{{a:X}}}" + (f"-\\x{{{b:X}}}" if b > a else "") for a, b in ranges) + "]"


def _escaped(text: str) -> str:
    return "".join(f"\\x{{{ord(character):X}}}" for character in text)
