"""The native encoder: sentencepiece's ids of many texts, several times as fast (docs/design.md, "Native encoder")."""

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from janeox.native import library
from janeox.tokenizer.model_file import UNIGRAM, ModelFile, PieceType

PORTION = 8192
"""Characters that a thread takes at once; a longer text is a portion of its own. So few leave room in the cache."""


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
def _library() -> ctypes.PyDLL | None:
    """The compiled library with the encoder's calls declared. They are made with Python's lock held."""
    loaded = library()
    if loaded is None:
        return None
    pointer, object_, number, count = ctypes.c_void_p, ctypes.py_object, ctypes.c_int64, ctypes.c_int
    calls: dict[str, tuple[type | None, list[type]]] = {
        "janeox_encoder_new": (pointer, [pointer, ctypes.c_char_p, ctypes.c_size_t]),
        "janeox_encoder_free": (None, [pointer]),
        "janeox_batch_new": (pointer, [pointer, object_, number, pointer, number, count]),
        "janeox_batch_work": (None, [pointer]),
        "janeox_batch_count": (number, [pointer]),
        "janeox_batch_take": (None, [pointer, pointer]),
        "janeox_batch_free": (None, [pointer]),
        "janeox_encode": (object_, [pointer, object_, object_]),
        "janeox_lists": (object_, [pointer, pointer, number, object_]),
    }
    locked = ctypes.PyDLL(None, handle=loaded._handle)
    for name, (result, arguments) in calls.items():
        call = getattr(locked, name)
        call.restype, call.argtypes = result, arguments
    return locked


class NativeEncoder:
    """Encodes texts with a model. Any number of threads may use it at once: Python's lock is held only while texts are
    read and lists are made. UTF-16 surrogates are read as `Tokenizer.encode` says.

    Raises:
        NotCovered: with the reason.
    """

    def __init__(self, file: ModelFile):
        self._handle: int | None = None
        loaded = _library()
        if loaded is None:
            raise NotCovered("the native library was not built")
        self._library = loaded
        # Each id as one Python object, however often lists hold it: less to make, and 8 bytes an id.
        self._integers = tuple(range(len(file.pieces)))
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
        """(ids of all texts end to end, uint16 or int32; number of ids of each text [texts], int64)."""
        return self._encode(texts, threads, self.dtype)

    def lists(self, texts: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Ids of each text."""
        ids, counts = self._encode(texts, threads, np.int32)
        return self._library.janeox_lists(ids.ctypes.data, counts.ctypes.data, len(counts), self._integers)

    def one(self, text: str) -> list[int]:
        """Ids of one text."""
        return self._library.janeox_encode(self._handle, text, self._integers)

    def _encode(
        self, texts: Sequence[str], threads: int, dtype: type[np.uint16] | type[np.int32]
    ) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(texts, list):
            texts = list(texts)
        counts = np.empty(len(texts), np.int64)
        width = np.dtype(dtype).itemsize
        batch = self._library.janeox_batch_new(self._handle, texts, len(texts), counts.ctypes.data, PORTION, width)
        try:
            with ThreadPoolExecutor(max(1, threads - 1)) as pool:

                def together(call: Callable[..., None], *arguments: int) -> None:
                    others = [pool.submit(call, batch, *arguments) for _ in range(threads - 1)]
                    call(batch, *arguments)  # here too, so that Ctrl-C is heard
                    for other in others:
                        other.result()

                together(self._library.janeox_batch_work)
                ids = np.empty(self._library.janeox_batch_count(batch), dtype)
                together(self._library.janeox_batch_take, ids.ctypes.data)
        finally:
            self._library.janeox_batch_free(batch)
        return ids, counts


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
