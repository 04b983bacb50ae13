"""The native encoder: sentencepiece's ids of many texts, several times as fast (docs/design.md, "Native encoder")."""

import ctypes
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from janeox.native import library
from janeox.tokenizer.model_file import UNIGRAM, ModelFile, PieceType

PORTION = 100_000
"""Characters handed over at once, so that they stay in the cache; a longer text is a portion of its own."""
ROOM = 1 << 15
"""Ids of one text for which room is kept ready; longer texts are a portion of a batch of one."""
GROUP = 1024
"""Texts whose lengths are looked at together; no portion crosses a group's border."""


class NotCovered(Exception):
    """This kind of model is not covered, or the library was not built: sentencepiece has to do it."""


class _Model(ctypes.Structure):
    """JaneoxModel of native/encoder.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("text", "lengths", "scores", "types", "byte_ids", "rules")),
        ("rules_size", ctypes.c_int64),
        ("pieces", ctypes.c_int32),
        ("unknown_id", ctypes.c_int32),
        *((name, ctypes.c_uint8) for name in ("dummy_prefix", "trim", "escape")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled library with the encoder's calls declared."""
    loaded = library()
    if loaded is None:
        return None
    pointer, number, count = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    calls: dict[str, tuple[type | None, list[type]]] = {
        "janeox_encoder_new": (pointer, [pointer, ctypes.c_char_p, ctypes.c_size_t]),
        "janeox_encoder_free": (None, [pointer]),
        "janeox_encode": (number, [pointer, ctypes.c_char_p, pointer, number, pointer]),
        "janeox_encode_one": (number, [pointer, ctypes.c_char_p, number, pointer, number]),
        "janeox_take": (None, [pointer, count]),
    }
    for name, (result, arguments) in calls.items():
        call = getattr(loaded, name)
        call.restype, call.argtypes = result, arguments
    return loaded


class _Room(threading.local):
    """Where the ids of one text are put; each thread has its own."""

    def __init__(self) -> None:
        self.ids = np.empty(ROOM, np.int32)
        self.address = self.ids.ctypes.data


class NativeEncoder:
    """Encodes texts with a model. Any number of threads may use it at once: compiled code runs without Python's lock.

    Raises:
        NotCovered: with the reason.
    """

    def __init__(self, file: ModelFile):
        self._handle: int | None = None
        loaded = _library()
        if loaded is None:
            raise NotCovered("the native library was not built")
        self._library = loaded
        self._room = _Room()
        # Each id as one Python object, however often lists hold it: less to make, and 8 bytes an id.
        self._integers = np.array(range(len(file.pieces)), object)
        self.dtype: type[np.uint16] | type[np.int32] = np.uint16 if len(file.pieces) <= 1 << 16 else np.int32
        reason = _uncovered(file)
        if reason:
            raise NotCovered(reason)
        text = np.frombuffer("".join(piece.text for piece in file.pieces).encode("utf-32-le"), np.uint32)
        lengths = np.array([len(piece.text) for piece in file.pieces], np.int32)
        scores = np.array([piece.score for piece in file.pieces], np.float32)
        types = np.array([piece.type for piece in file.pieces], np.uint8)
        bytes_ = {piece.text: id for id, piece in enumerate(file.pieces) if piece.type is PieceType.BYTE}
        byte_ids = np.array([bytes_.get(f"<0x{byte:02X}>", -1) for byte in range(256)], np.int32)
        rules = np.frombuffer(file.charsmap, np.uint8)
        model = _Model(
            *(array.ctypes.data for array in (text, lengths, scores, types)),
            byte_ids.ctypes.data if file.byte_fallback else None,
            rules.ctypes.data,
            len(rules),
            len(file.pieces),
            int(np.flatnonzero(types == PieceType.UNKNOWN)[0]),
            file.add_dummy_prefix,
            file.remove_extra_whitespaces,
            file.escape_whitespaces,
        )
        error = ctypes.create_string_buffer(200)
        self._handle = loaded.janeox_encoder_new(ctypes.byref(model), error, len(error))
        if self._handle is None:
            raise NotCovered(error.value.decode())

    def __del__(self) -> None:
        if self._handle is not None:
            self._library.janeox_encoder_free(self._handle)

    def encode(self, texts: Sequence[str], threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(ids of all texts end to end, uint16 or int32; number of ids of each text [texts], int64).

        Raises:
            UnicodeEncodeError: a text holds a surrogate.
        """
        parts = list(self._parts(texts, threads))
        if not parts:
            return np.empty(0, self.dtype), np.empty(0, np.int64)
        ids, counts = zip(*parts, strict=True)
        return np.concatenate(ids), np.concatenate(counts)

    def lists(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Ids of each text.

        Raises:
            UnicodeEncodeError: a text holds a surrogate.
        """
        found = []
        for ids, counts in self._parts(texts, threads):
            flat = self._integers[ids].tolist()
            borders = [0, *np.cumsum(counts).tolist()]
            found += [flat[start:stop] for start, stop in itertools.pairwise(borders)]
        return found

    def one(self, text: str) -> list[int]:
        """Ids of one text.

        Raises:
            UnicodeEncodeError: the text holds a surrogate.
        """
        if len(text) <= ROOM:
            room, data = self._room, text.encode("utf-32-le")
            count = self._library.janeox_encode_one(self._handle, data, len(text), room.address, ROOM)
            if 0 <= count <= ROOM:
                return room.ids[:count].tolist()
        return self.lists([text])[0]

    def _parts(self, texts: Sequence[str], threads: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(ids, number of ids of each text), portion by portion."""
        if threads == 1:
            yield from itertools.starmap(self._portion, _portions(texts))
            return
        with ThreadPoolExecutor(threads) as pool:
            # While the threads encode, this one cuts portions and works on what is done.
            for done in [pool.submit(self._portion, *portion) for portion in _portions(texts)]:
                yield done.result()

    def _portion(self, texts: Sequence[str], lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids of the texts, whose lengths in characters are given; number of ids of each)"""
        # UTF-32, so that lengths in characters are places in the buffer, and nothing has to be decoded.
        text = "".join(texts).encode("utf-32-le")
        counts = np.empty(len(texts), np.int64)
        total = self._library.janeox_encode(self._handle, text, lengths.ctypes.data, len(lengths), counts.ctypes.data)
        if total < 0:
            raise MemoryError(f"no memory to encode {len(text) // 4:,} characters")
        ids = np.empty(total, self.dtype)
        self._library.janeox_take(ids.ctypes.data, ids.itemsize)
        return ids, counts


def _portions(texts: Sequence[str]) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """(texts, their lengths in characters)"""
    for start in range(0, len(texts), GROUP):
        group = texts[start : start + GROUP]
        lengths = np.fromiter(map(len, group), np.int64, len(group))
        before = np.cumsum(lengths) - lengths
        borders = [0, *(np.flatnonzero(np.diff(before // PORTION)) + 1).tolist(), len(group)]
        for a, b in itertools.pairwise(borders):
            yield group[a:b], lengths[a:b]


def _uncovered(file: ModelFile) -> str:
    """Why this model is left to sentencepiece; empty where it is not."""
    types = [piece.type for piece in file.pieces]
    if file.algorithm != UNIGRAM:
        return "not a unigram model"
    if file.treat_whitespace_as_suffix:
        return "spaces belong to the word before them"
    if types.count(PieceType.UNKNOWN) != 1 or PieceType.NORMAL not in types:
        return "no unknown piece, or no normal one"
    if file.byte_fallback and types.count(PieceType.BYTE) != 256:
        return "not 256 byte pieces"
    if any("\0" in piece.text or not piece.text for piece in file.pieces):
        return "a piece is empty or holds a NUL"
    if not all(abs(piece.score) < 1e6 for piece in file.pieces):
        return "a score is out of the ordinary"
    return ""
