"""Parquet files of documents, as the Hugging Face Hub holds data sets: a column `text`, and `id` or `url` beside it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from janeox.corpus.unpack import DamagedArchive
from janeox.errors import JaneoxError

MAGIC = b"PAR1"
ROWS = 256
"""Rows held in memory at once."""


def rows(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[int, bytes | None, Any]]:
    """Row number from 1, its text in UTF-8 (None if null), and what names it. Columns beside these are not read.

    Raises:
        JaneoxError: pyarrow is not installed, the file is truncated or damaged, or has no string column `text`.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise JaneoxError(f"{path}: Parquet needs another package: pip install 'janeox[corpus]'") from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if "text" not in columns or not _is_text(pa, file.schema_arrow.field("text").type):
                raise JaneoxError(f"{path}: has no column `text` of strings; its columns are {', '.join(columns)}")
            names = [name for name in ("id", "url") if name in columns][:1]
            size, told = path.stat().st_size, 0
            for batch in file.iter_batches(ROWS, columns=["text", *names]):
                texts = batch.column("text").cast(pa.large_binary()).to_pylist()
                keys = batch.column(names[0]).to_pylist() if names else [None] * len(texts)
                for text, key in zip(texts, keys, strict=True):
                    number += 1
                    yield number, text, key
                reached = size * number // file.metadata.num_rows
                advance(reached - told)
                told = reached
            advance(size - told)
    except (pa.ArrowException, OSError) as error:
        raise DamagedArchive(path, number, error) from error


def _is_text(pa: Any, kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
