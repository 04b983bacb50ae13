"""The few fields of a sentencepiece model file that its library does not hand out, read from the protobuf bytes.

sentencepiece's own protobuf classes insist on one protobuf release or newer, which would clash with other packages;
the format itself is simple: (field number, wire type) keys, each followed by a varint, 4 or 8 bytes, or a length and
that many bytes. Numbers below are those of sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

UNIGRAM = 1


class PieceType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    type: PieceType
    score_at: int
    """Where the four bytes of the score lie in the file; -1 where the file leaves the score out (0)."""


@dataclass
class ModelFile:
    """Defaults are those of the format, for fields that the file leaves out."""

    pieces: list[Piece] = field(default_factory=list)
    """By id."""
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    treat_whitespace_as_suffix: bool = False
    """Spaces are joined to the word before them, not to the one after."""
    unknown_surface: str = " ⁇ "
    """What an unknown piece is decoded to."""
    normalization: str = ""
    """Name of the normalisation rules, such as nmt_nfkc."""
    charsmap: bytes = b""
    """Compiled normalisation rules; empty for identity."""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


def read_model(data: bytes) -> ModelFile:
    """Parses a `spiece.model`.

    Raises:
        ValueError: the bytes are cut short or are no sentencepiece model.
    """
    model = ModelFile()
    seen = set()
    for number, value, at in _fields(data, 0, len(data)):
        seen.add(number)
        if number == 1:
            model.pieces.append(_piece(data, at, at + value))
        elif number == 2:
            _read_trainer(model, data, at, at + value)
        elif number == 3:
            _read_normalizer(model, data, at, at + value)
    # Every trainer writes the three parts in this order, so a file cut between two fields lacks the last.
    if not {1, 2, 3} <= seen:
        raise ValueError("a part of the model is missing")
    return model


def with_scores(data: bytes, pieces: list[Piece], scores: list[float]) -> bytes:
    """The same model file with other scores, one per piece; every other byte stays."""
    patched = bytearray(data)
    for piece, score in zip(pieces, scores, strict=True):
        if piece.score_at >= 0:
            struct.pack_into("<f", patched, piece.score_at, score)
    return bytes(patched)


def _piece(data: bytes, start: int, end: int) -> Piece:
    text, score, kind, score_at = "", 0.0, PieceType.NORMAL, -1
    for number, value, at in _fields(data, start, end):
        if number == 1:
            text = data[at : at + value].decode("utf-8")
        elif number == 2:
            score, score_at = struct.unpack_from("<f", data, at)[0], at
        elif number == 3:
            kind = PieceType(value)
    return Piece(text, score, kind, score_at)


def _read_trainer(model: ModelFile, data: bytes, start: int, end: int) -> None:
    for number, value, at in _fields(data, start, end):
        if number == 3:
            model.algorithm = value
        elif number == 24:
            model.treat_whitespace_as_suffix = bool(value)
        elif number == 35:
            model.byte_fallback = bool(value)
        elif number == 44:
            model.unknown_surface = data[at : at + value].decode("utf-8")


def _read_normalizer(model: ModelFile, data: bytes, start: int, end: int) -> None:
    for number, value, at in _fields(data, start, end):
        if number == 1:
            model.normalization = data[at : at + value].decode("utf-8")
        elif number == 2:
            model.charsmap = data[at : at + value]
        elif number == 3:
            model.add_dummy_prefix = bool(value)
        elif number == 4:
            model.remove_extra_whitespaces = bool(value)
        elif number == 5:
            model.escape_whitespaces = bool(value)


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, value, offset) of each field: a varint's value, or the length of the bytes at the offset."""
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, after = _varint(data, at, end)
        elif wire == 2:
            value, at = _varint(data, at, end)
            after = at + value
        elif wire in (1, 5):
            value = 8 if wire == 1 else 4
            after = at + value
        else:
            raise ValueError(f"unknown wire type {wire} at byte {at}")
        if after > end:
            raise ValueError("cut short")
        yield number, value, at
        at = after


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("cut short")
