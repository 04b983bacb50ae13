"""A stream of bytes cut into whole rows, and of JSON rows the fields that are wanted; natively where the library is."""

import ctypes
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any

import orjson

from janeox.corpus import unpack
from janeox.native import library

MAX_BYTES = 64 * 2**20
"""A longer row or document is reported and skipped, so that a file without line breaks cannot fill the memory."""
AHEAD = 3
"""Blocks that a thread reads before they are asked for."""


@contextmanager
def read_ahead(stream: io.BufferedReader) -> Iterator[Iterator[bytes]]:
    """The stream's blocks, which a thread unpacks while those before them are used. Errors come in a block's place."""
    wanted: SimpleQueue[bool] = SimpleQueue()  # one more block, or no more
    read: SimpleQueue[bytes | Exception] = SimpleQueue()

    def work() -> None:
        while wanted.get():
            try:
                read.put(stream.read(unpack.BUFFER))  # xz and bzip2 give little at once
            except Exception as error:
                read.put(error)

    def blocks() -> Iterator[bytes]:
        while block := read.get():
            if isinstance(block, Exception):
                raise block
            wanted.put(True)
            yield block

    for _ in range(AHEAD):
        wanted.put(True)
    thread = Thread(target=work, name="read-ahead", daemon=True)  # so that it never holds up the end of the program
    thread.start()
    try:
        yield blocks()
    finally:
        wanted.put(False)
        thread.join()


class Rows:
    """The rows of a stream, read one by one as JSON or taken many at once.

    Args:
        blocks: the stream's bytes, piece by piece.
        told: called after every block.
        names: of the fields that are wanted of a row.
    """

    number = 0
    """Of the row that came last, from 1. Who takes portions counts them."""

    def __init__(self, blocks: Iterator[bytes], told: Callable[[], None], names: tuple[str, ...] = ()):
        self._blocks, self._told, self._names = blocks, told, names

    def __iter__(self) -> Iterator[dict[str, Any] | bytes]:
        """Each row: its wanted fields where that is plain to see, else its bytes, line break included, for `parse`."""
        call = _native("janeox_rows")
        for block, start, end in self.portions():
            if call is not None:
                found = call(block, start, end, MAX_BYTES, self._names)
            else:  # bytes.splitlines would cut at a \r too
                found = io.BytesIO(block[start:end])
            for row in found:
                self.number += 1
                yield row

    def portions(self) -> Iterator[tuple[bytes, int, int]]:
        """Whole rows with their line breaks, as many as come at once: bytes, and where in them the rows start (there is
        a line break before) and end.

        A row longer than `MAX_BYTES` is cut, but stays longer than that; white space after the last line break is left
        out.
        """
        rest = bytearray(b"\n")  # and a row whose end has not come
        for block in self._blocks:
            start = block.find(b"\n") + 1
            if start:
                row = bytes(rest) + block[:start]
                yield row, 1, len(row)
                end = block.rfind(b"\n") + 1
                if start < end:
                    yield block, start, end
                rest = bytearray(b"\n" + block[end:])
                self._told()
            elif len(rest) <= MAX_BYTES + 1:
                rest += block
        if not rest.isspace():
            yield bytes(rest), 1, len(rest)


def parse(row: bytes) -> tuple[dict[str, Any] | None, str]:
    """The row's JSON object, or None and what is wrong with it."""
    if len(row) > MAX_BYTES:
        return None, f"row of more than {MAX_BYTES} bytes"
    try:
        value = orjson.loads(row)
    except orjson.JSONDecodeError:  # it is strict; the standard library reads NaN and the like, and says what is wrong
        try:
            value = json.loads(row.decode("utf-8"))
        except UnicodeDecodeError as error:
            return None, f"not UTF-8 ({error.reason})"
        except (ValueError, RecursionError) as error:
            return None, f"not JSON ({error})"
        if isinstance(value, dict) and isinstance(text := value.get("text"), str) and lone_surrogate(text):
            return None, "`text` holds half a surrogate pair, which is no character"
    return (value, "") if isinstance(value, dict) else (None, "not a JSON object")


def decode(content: bytes) -> str:
    """Its text, from UTF-8.

    Raises:
        UnicodeDecodeError: as Python's own `decode`.
    """
    call = _native("janeox_text")
    text = content if call is None else call(content)
    return text if isinstance(text, str) else content.decode("utf-8")


def lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


@cache
def _native(name: str) -> Callable[..., Any] | None:
    loaded = library()
    if loaded is None:
        return None
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, *_ARGUMENTS[name])  # with Python's lock
    return prototype((name, loaded))


_ARGUMENTS = {
    "janeox_rows": (ctypes.py_object, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.py_object),
    "janeox_text": (ctypes.py_object,),
}
