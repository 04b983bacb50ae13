"""Raw corpus files → documents, streaming: memory does not grow with the file.

Read are CC-100 (paragraphs in lines, documents between empty lines; plain `.txt` likewise), JSON rows with a `text`
(mC4, JSON lines), Parquet files with such a column, and CirrusSearch dumps of Wikipedia, in the form of 2025
(`*-cirrussearch-content.json.gz`) and the one since 2026 (`cirrus_search_index/…/*.json.bz2`). Compression is read off
the first bytes, not the name: samples of CC-100 named `.txt.xz` that hold plain text are in circulation.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janeox.corpus import parquet, rows
from janeox.corpus.document import Document, Kind
from janeox.corpus.rows import Rows, lone_surrogate, read_ahead
from janeox.corpus.unpack import BUFFER, DAMAGE, ENDINGS, DamagedArchive, unpack
from janeox.errors import JaneoxError

WIDE = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16
BOM = b"\xef\xbb\xbf"
TEXT = (".txt",)
ROWS = (".json", ".jsonl", ".ndjson")
PARQUET = (".parquet",)
FIELDS = ("text", "id", "url", "index", "namespace", "page_type")
"""What is read of a JSON row."""

_BLANK = re.compile(rb"\n(?:[ \t\r\v\f]*\n)+")
"""Lines with nothing but ASCII white space on them, and the end of the line before."""


@dataclass
class BadRows:
    """Rows that could not be read: how many, and the first few as `file:line: reason`."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    """Files that could not be read to their end, and up to where."""
    stop: bool = False
    """The first one ends the reading."""

    def add(self, where: str, reason: str) -> None:
        """Raises JaneoxError if the recipe says so."""
        if self.stop:
            raise JaneoxError(f"{where}: {reason}; without corpus.stop_on_bad_rows such rows are passed over")
        self.count += 1
        if len(self.first) < 20:
            self.first.append(f"{where}: {reason}")


def known(path: Path) -> bool:
    """Whether the name is one of a corpus file; decides which files of a folder are read."""
    name = path.name.lower()
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return not name.startswith((".", "_")) and name.endswith(TEXT + ROWS + PARQUET)


def readable_documents(
    path: Path, source: str, bad_rows: BadRows, advance: Callable[[int], None] = lambda num_bytes: None
) -> Iterator[Document]:
    """As `read_documents`, but of a damaged archive what comes before the damage and the `BUFFER` with it; `bad_rows`
    tells of it.

    Raises:
        JaneoxError: as `read_documents`; for a damaged archive only if `bad_rows.stop`.
    """
    try:
        yield from read_documents(path, source, bad_rows, advance)
    except DamagedArchive as error:
        if bad_rows.stop:
            raise
        bad_rows.damaged.append(f"{error.where}: {error}")


def read_documents(
    path: Path, source: str, bad_rows: BadRows, advance: Callable[[int], None] = lambda num_bytes: None
) -> Iterator[Document]:
    """Yields the documents of one file in its order. Rows that cannot be read are added to `bad_rows` and passed over.

    `advance` is told, now and then, how many more bytes of the (compressed) file have been read.

    Raises:
        JaneoxError: the file is missing, of a format that is not read, or an archive that is truncated or damaged;
            names the file and how far it was read.
    """
    lines = None
    try:
        with path.open("rb") as file:
            head = file.read(len(parquet.MAGIC))
            file.seek(0)
        if head == parquet.MAGIC:
            yield from _parquet(path, source, bad_rows, advance)
            return
        with path.open("rb") as file, unpack(path, file) as stream:
            kind = _kind(path, stream)
            reported = 0

            def told() -> None:
                nonlocal reported
                advance(file.tell() - reported)
                reported = file.tell()

            read = _paragraphs if kind == "text" else _json_rows
            with read_ahead(stream) as blocks:
                lines = Rows(blocks, told, FIELDS)
                yield from read(lines, path, source, bad_rows)
            told()
    except FileNotFoundError as error:
        raise JaneoxError(f"{path}: no such file") from error
    except DAMAGE as error:
        raise DamagedArchive(path, lines.number if lines else 0, error) from error
    except OSError as error:
        if error.errno is None:  # bz2 reports damage as an OSError of its own
            raise DamagedArchive(path, lines.number if lines else 0, error) from error
        raise JaneoxError(f"{path}: cannot be read ({error.strerror})") from error


def _kind(path: Path, stream: io.BufferedReader) -> Kind:
    """The format, by name or else by the first bytes. Reads nothing off the stream but a byte order mark."""
    head = stream.peek(BUFFER)
    if head.startswith(WIDE):
        raise JaneoxError(f"{path}: is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW.txt")
    if head.startswith(BOM):
        stream.read(len(BOM))
        head = head[len(BOM) :]
    name = path.name.lower()
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    if name.endswith(ROWS):
        return "json"
    readable = len(head.replace(b"\0", b"").decode("utf-8", "ignore").encode("utf-8"))
    if readable < 0.7 * len(head):  # a real corpus has a broken byte here and there
        raise JaneoxError(
            f"{path}: is neither UTF-8 text nor an archive that is read; known are text, JSON lines and CirrusSearch "
            "rows, plain or packed with xz, gzip, bzip2 or zstd, and Parquet. Text in Shift_JIS: "
            "iconv -f CP932 -t UTF-8 FILE > NEW.txt"
        )
    return "text" if name.endswith(TEXT) or not head.lstrip().startswith(b"{") else "json"


def _paragraphs(lines: Rows, path: Path, source: str, bad_rows: BadRows) -> Iterator[Document]:
    """Documents between blank lines."""
    for first, content in _between_blank_lines(lines):
        where = f"{path.name}:{first}"
        if content is None:
            bad_rows.add(where, f"document of more than {rows.MAX_BYTES} bytes; empty lines end documents")
            continue
        if b"\r" in content:  # a byte is sought much faster than two
            content = content.replace(b"\r\n", b"\n")
        content = content.removesuffix(b"\n")
        try:
            text = rows.decode(content)
        except UnicodeDecodeError as error:
            line = first + content[: error.start].count(b"\n")
            bad_rows.add(f"{path.name}:{line}", f"not UTF-8 ({error.reason}); its document is dropped")
        else:
            yield Document(text, source, where, where, "text")


def _between_blank_lines(lines: Rows) -> Iterator[tuple[int, bytes | None]]:
    """What stands between blank lines, and the number of its first line; None for more than `MAX_BYTES`."""
    parts: list[bytes] = []
    first, size = 1, 0
    for block, start, end in lines.portions():
        counted = start
        for blank in _BLANK.finditer(block, start - 1, end):  # a blank line may come first
            size += blank.start() + 1 - start
            if size:
                parts.append(block[start : blank.start() + 1])
                yield first, b"".join(parts) if size <= rows.MAX_BYTES else None
            lines.number += block.count(b"\n", counted, blank.end())
            start = counted = blank.end()
            parts, first, size = [], lines.number + 1, 0
        size += end - start
        parts = [*parts, block[start:end]] if size <= rows.MAX_BYTES else []
        lines.number += block.count(b"\n", counted, end)
    if size:
        yield first, b"".join(parts) if size <= rows.MAX_BYTES else None


def _json_rows(lines: Rows, path: Path, source: str, bad_rows: BadRows) -> Iterator[Document]:
    """JSON objects with a `text`; in a CirrusSearch dump each follows a row `{"index":{"_id":…}}` that names it.

    Redirects, pages outside the articles' namespace and empty articles are part of such a dump, so not malformed.
    """
    page: str | None = None  # id in the row before, waiting for its document
    action, file = 0, path.name
    for row in lines:
        where = f"{file}:{lines.number}"
        if isinstance(row, dict):
            value = row
        elif row.isspace():
            continue
        else:
            found, reason = rows.parse(row)
            if found is None:
                bad_rows.add(where, reason)
                page = None
                continue
            value = found
        index = value.get("index")
        if isinstance(index, dict) and "text" not in value:
            if page is not None:
                bad_rows.add(f"{file}:{action}", f"no document follows the row of page {page}")
            page, action = str(index.get("_id", where)), lines.number
            continue
        kind: Kind = "json" if page is None else "wiki"
        name = page if page is not None else value.get("id", value.get("url"))
        page = None
        if kind == "wiki" and (value.get("namespace", 0) != 0 or value.get("page_type") == "redirect"):
            continue
        text = value.get("text")
        if not isinstance(text, str):
            bad_rows.add(where, "no `text`, or one that is not a string")
        elif not text and kind == "wiki":
            continue
        else:
            yield Document(text, source, _identity(name, where), where, kind)
    if page is not None:
        bad_rows.add(f"{file}:{action}", f"no document follows the row of page {page}")


def _parquet(path: Path, source: str, bad_rows: BadRows, advance: Callable[[int], None]) -> Iterator[Document]:
    for number, encoded, name in parquet.rows(path, advance):
        where = f"{path.name}:{number}"
        if encoded is None:
            bad_rows.add(where, "`text` is null")
        elif len(encoded) > rows.MAX_BYTES:
            bad_rows.add(where, f"row of more than {rows.MAX_BYTES} bytes")
        else:
            try:
                yield Document(encoded.decode("utf-8"), source, _identity(name, where), where, "json")
            except UnicodeDecodeError as error:
                bad_rows.add(where, f"not UTF-8 ({error.reason})")


def _identity(name: Any, where: str) -> str:
    if isinstance(name, int):
        return str(name)
    usable = isinstance(name, str) and name and (name.isascii() or not lone_surrogate(name))
    return name if usable else where
