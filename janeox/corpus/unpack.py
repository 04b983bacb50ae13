"""Compressed files as streams, by their first bytes. gzip goes through ISA-L where it is installed, faster than zlib;
zstd through zstandard, xz and bzip2 through Python's own bindings of their reference libraries.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

from janeox.errors import JaneoxError

igzip: ModuleType | None
DAMAGE: tuple[type[Exception], ...] = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)
"""What a truncated or damaged archive raises; bzip2's is an OSError without a number."""
try:
    from isal import igzip, igzip_lib

    DAMAGE = (*DAMAGE, igzip_lib.IsalError)  # type: ignore[arg-type]
except ImportError:  # an extra
    igzip = None

ENDINGS = (".xz", ".gz", ".bz2", ".zst")
BUFFER = 2**19
PORTION = 2**17
"""Compressed bytes read at once."""


class DamagedArchive(JaneoxError):
    """A file that could be read in part: `where` is its name and the last line or row of that part."""

    def __init__(self, path: Path, line: int, error: Exception):
        self.where = f"{path.name}:{line}"
        super().__init__(
            f"{path}: the archive is truncated or damaged; it was read up to row {line} ({error}). Fetch it again"
        )


def gunzip(file: BinaryIO) -> Any:
    """The fastest gzip there is here."""
    return gzip.open(file) if igzip is None else igzip.open(file)


class _Zstd(io.RawIOBase):
    """zstandard's own reader takes a truncated archive for a short one, and stops after the first of several."""

    def __init__(self, file: BinaryIO):
        try:
            import zstandard
        except ImportError as error:
            raise JaneoxError(f"{file.name}: zstd needs another package: pip install 'janeox[corpus]'") from error
        self._file, self._zstandard = file, zstandard
        self._frame: Any = None
        self._packed = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._packed:
                self._packed = self._file.read(PORTION)
                if not self._packed:
                    if self._frame is not None:
                        raise EOFError("it ends in the middle of a frame")
                    return 0
            if self._frame is None:
                self._frame = self._zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
            try:
                self._ready = self._frame.decompress(self._packed)
            except self._zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            self._packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


MAGIC: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\xfd7zXZ\x00": lzma.open,
    b"\x1f\x8b": gunzip,
    b"BZh": bz2.open,
    b"\x28\xb5\x2f\xfd": _Zstd,
}
FOREIGN = {b"PK\x03\x04": "is a zip archive, which is not read; unpack it first"}


def unpack(path: Path, file: BinaryIO) -> io.BufferedReader:
    """The file's content; `file` stands at its start.

    Raises:
        JaneoxError: the archive is of a kind that is not read.
        EOFError: it ends within its first bytes.
    """
    head = file.read(8)
    file.seek(0)
    for magic, reason in FOREIGN.items():
        if head.startswith(magic):
            raise JaneoxError(f"{path}: {reason}")
    for magic, opened in MAGIC.items():
        if head.startswith(magic):
            # Their own readline is Python; that of a BufferedReader around them is not.
            return io.BufferedReader(opened(file), BUFFER)
        if head and len(head) < len(magic) and magic.startswith(head) and path.name.endswith(ENDINGS):
            raise EOFError(f"{len(head)} bytes long")
    return io.BufferedReader(cast(io.RawIOBase, file), BUFFER)
