"""Token shards: documents as ids in one flat file, memory-mapped when read.

The files are Megatron's and gpt-neox's `.bin`/`.idx` pairs, so data move between those trainers and this one as they
are. Beside them `shards.json` says which tokenizer made them and how much text they hold, per file.

`.idx`: b"MMIDIDX\\0\\0", u64 version 1, u8 dtype code, u64 sequences, u64 documents + 1, then int32 lengths
[sequences], int64 byte offsets [sequences], int64 document starts [documents + 1]. `.bin`: the ids, little-endian.
"""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from janeox.errors import JaneoxError

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
CODES: dict[int, type[np.integer]] = {4: np.int32, 8: np.uint16}
MANIFEST = "shards.json"
BLOCK = 1 << 16
"""Documents of an index that are held at once."""


@dataclass
class ShardFile:
    """One `.bin`/`.idx` pair as `shards.json` lists it."""

    split: str
    """train or valid."""
    source: str
    name: str
    """Path of the pair without its suffix, from the folder of `shards.json`."""
    num_documents: int
    num_tokens: int
    num_chars: int
    """Characters of the raw text."""
    num_bytes: int
    """UTF-8 bytes of the raw text: what bits per byte divide by."""


class ShardWriter:
    """Writes one pair, document by document; `with` closes it. Ids need a vocabulary of at most 2^31.

    Args:
        stem: path without suffix.
    """

    def __init__(self, stem: Path, vocab_size: int):
        stem.parent.mkdir(parents=True, exist_ok=True)
        self.stem = stem
        self.code = 8 if vocab_size <= 1 << 16 else 4
        self._data = open(_with(stem, ".bin"), "wb")  # noqa: SIM115 (closed by __exit__)
        self._index = open(_with(stem, ".idx"), "w+b")  # noqa: SIM115 (closed by __exit__)
        self._index.write(bytes(HEADER.size))

    def append(self, ids: list[int] | np.ndarray) -> None:
        """Adds one document; its `</s>` is among the ids."""
        self._data.write(np.asarray(ids, dtype=CODES[self.code]).tobytes())
        self._index.write(len(ids).to_bytes(4, "little"))

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._data, self._index:
            if error is None:
                self._end_index()

    def _end_index(self) -> None:
        """Behind the lengths come offsets and starts, a block at a time: a corpus may have a billion documents."""
        index, offset = self._index, 0
        count = (index.tell() - HEADER.size) // 4
        for first in range(0, count, BLOCK):
            index.seek(HEADER.size + 4 * first)
            lengths = np.frombuffer(index.read(4 * min(BLOCK, count - first)), np.int32)
            ends = offset + np.cumsum(lengths, dtype=np.int64) * np.dtype(CODES[self.code]).itemsize
            index.seek(0, os.SEEK_END)
            index.write(np.append(np.int64(offset), ends[:-1]).tobytes())
            offset = int(ends[-1])
        for first in range(0, count + 1, BLOCK):
            index.write(np.arange(first, min(first + BLOCK, count + 1), dtype=np.int64).tobytes())
        index.seek(0)
        index.write(HEADER.pack(MAGIC, 1, self.code, count, count + 1))


class TokenFile:
    """A memory-mapped pair: `tokens`, all ids end to end; `lengths` of its sequences; `starts` (documents + 1), the
    sequence that each document begins with, and their number. In files of janeox a document is one sequence.

    Raises:
        JaneoxError: a file is missing, cut short, or of another format.
    """

    def __init__(self, stem: Path):
        index_file, data_file = _with(stem, ".idx"), _with(stem, ".bin")
        for file in (index_file, data_file):
            if not file.is_file():
                raise JaneoxError(f"{file}: missing; tokenize again")
        raw = index_file.read_bytes()
        if len(raw) < HEADER.size or not raw.startswith(MAGIC):
            raise JaneoxError(f"{index_file}: not a Megatron index (.idx)")
        _, version, code, num_sequences, num_starts = HEADER.unpack_from(raw)
        if version != 1 or code not in CODES:
            raise JaneoxError(f"{index_file}: version {version}, dtype code {code}; known are version 1 with 4 or 8")
        if len(raw) != HEADER.size + 12 * num_sequences + 8 * num_starts:
            raise JaneoxError(f"{index_file}: cut short or damaged; tokenize again")
        dtype = np.dtype(CODES[code])
        self.lengths = np.frombuffer(raw, np.int32, num_sequences, HEADER.size)
        ends = np.cumsum(self.lengths, dtype=np.int64) * dtype.itemsize
        size = int(ends[-1]) if num_sequences else 0
        offsets = np.frombuffer(raw, np.int64, num_sequences, HEADER.size + 4 * num_sequences)
        self.starts = np.frombuffer(raw, np.int64, num_starts, HEADER.size + 12 * num_sequences)
        if (self.lengths < 0).any() or (offsets[1:] != ends[:-1]).any() or (num_sequences and offsets[0] != 0):
            raise JaneoxError(f"{index_file}: its sequences do not follow each other in the data; tokenize again")
        if not num_starts or self.starts[0] or self.starts[-1] != num_sequences or (np.diff(self.starts) < 0).any():
            raise JaneoxError(f"{index_file}: its documents do not cover its sequences; tokenize again")
        if data_file.stat().st_size != size:
            raise JaneoxError(
                f"{data_file}: {data_file.stat().st_size} bytes, but its index says {size}; tokenize again"
            )
        self.tokens = np.memmap(data_file, dtype=dtype, mode="r") if size else np.empty(0, dtype)


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # Path.with_suffix would cut a dot in the source's name


class Shards:
    """A folder of shards: its manifest, and the token files of each split.

    Raises:
        JaneoxError: no manifest, or a damaged one.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        manifest = folder / MANIFEST
        try:
            table = json.loads(manifest.read_text(encoding="utf-8"))
            self.vocab_size: int = table["vocab_size"]
            self.eos_token_id: int = table["eos_token_id"]
            self.tokenizer: str = table["tokenizer"]
            self.files = [ShardFile(**row) for row in table["files"]]
        except OSError as error:
            raise JaneoxError(f"{folder}: no {MANIFEST} there; make shards with `janeox tokenize`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise JaneoxError(f"{manifest}: damaged ({error}); tokenize again") from error

    def of(self, split: str) -> list[ShardFile]:
        return [file for file in self.files if file.split == split]

    def tokens(self, file: ShardFile) -> np.ndarray:
        """All ids of one file, (num_tokens,), memory-mapped."""
        tokens = TokenFile(self.folder / file.name).tokens
        if len(tokens) != file.num_tokens:
            raise JaneoxError(f"{self.folder / file.name}.bin: {len(tokens)} tokens, {MANIFEST} says {file.num_tokens}")
        return tokens

    def by_source(self, split: str) -> Iterator[tuple[str, list[ShardFile]]]:
        """Each source's files of a split, sources in order of their names."""
        for source in sorted({file.source for file in self.of(split)}):
            yield source, [file for file in self.of(split) if file.source == source]


def write_manifest(folder: Path, vocab_size: int, eos_token_id: int, tokenizer: str, files: list[ShardFile]) -> None:
    """`shards.json`; `tokenizer` is the tokenizer's fingerprint."""
    table = {
        "vocab_size": vocab_size,
        "eos_token_id": eos_token_id,
        "tokenizer": tokenizer,
        "files": [asdict(file) for file in files],
    }
    (folder / MANIFEST).write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
