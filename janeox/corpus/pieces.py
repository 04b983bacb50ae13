"""Pieces of a raw file: what cleaning holds at once, so that memory grows neither with a file nor with the corpus.

A piece is a folder with the cleaned documents of some 8 million raw characters, and two files for each kind of hash
(`kinds`): its distinct hashes in order, and the places whose hash came before in the same piece. Being sorted, a part
of the range of hashes is one stretch of each piece's file; being distinct, no hash fills a part by itself, however
often its text occurs.
"""

import gzip
import hashlib
import json
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from janeox.config import CorpusConfig
from janeox.corpus.contamination import held_out_hashes
from janeox.corpus.document import Document
from janeox.corpus.near import band_keys
from janeox.corpus.tally import text_hash

PIECE_CHARS = 1 << 23
"""Raw characters after which a piece ends, with the document."""
ENTRY = np.dtype([("hash", "<u8"), ("place", "<u4"), ("count", "<u4")])
"""A hash, where in its piece it comes first, and how often. Places are numbers of documents, or of lines."""


def kinds(config: CorpusConfig) -> list[str]:
    """The kinds of hash by which a recipe tells repetition."""
    return ["text", *(["near"] if config.near_duplicates else []), *(["line"] if config.repeated_lines else [])]


class PieceWriter:
    """Writes a piece; all but the hashes goes to the disk at once."""

    def __init__(self, folder: Path, config: CorpusConfig):
        folder.mkdir()
        self.folder, self.config = folder, config
        self._file = gzip.GzipFile(folder / "documents", "wb", compresslevel=1)
        self._hashes = {kind: array("Q") for kind in (*kinds(config), "held_out")}

    def add(self, text: str, id: str, where: str) -> None:
        config = self.config
        row = json.dumps([text, id, where], ensure_ascii=False)
        self._file.write(row.encode("utf-8", "surrogatepass") + b"\n")
        key = text_hash(text)
        self._hashes["text"].append(key)
        if config.near_duplicates:
            keys = band_keys(text, config.minhash_chars, config.minhash_bands, config.minhash_rows)
            self._hashes["near"].frombytes(keys.tobytes())
        if config.repeated_lines:
            self._hashes["line"].frombytes(line_hashes(text, config.repeated_lines).tobytes())
        if config.decontaminate_valid and is_valid(key, config):
            self._hashes["held_out"].frombytes(held_out_hashes(text).tobytes())

    def close(self) -> None:
        self._file.close()
        np.frombuffer(self._hashes.pop("held_out"), np.uint64).tofile(self.folder / "held_out")
        for kind, found in self._hashes.items():
            hashes = np.frombuffer(found, np.uint64)
            per_place = self.config.minhash_bands if kind == "near" else 1
            entries, again = distinct(hashes, np.arange(len(hashes), dtype=np.uint32) // np.uint32(per_place))
            entries.tofile(self.folder / kind)
            again.tofile(self.folder / f"{kind}-again")


def distinct(hashes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct hashes as `ENTRY`, sorted; and the places, sorted, that hold a hash that came before.

    Hash 0 stands for none and is left out.
    """
    known, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    again = hashes != 0
    again[first] = False
    entries = np.empty(len(known), ENTRY)
    entries["hash"], entries["place"], entries["count"] = known, places[first], counts
    return entries[known != 0], np.unique(places[again])


def read_array(file: Path, dtype: np.dtype | type = np.uint64) -> np.ndarray:
    """The values of a file, mapped into memory."""
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)


def piece_documents(folder: Path, source: str) -> Iterator[Document]:
    """The documents of a piece, in the order of the raw file."""
    with gzip.open(folder / "documents", "rb") as file:
        for line in file:
            text, id_, where = json.loads(line)
            yield Document(text, source, id_, where)


def is_valid(key: int, config: CorpusConfig) -> bool:
    """Whether a document whose text has this hash is held out."""
    return key < config.valid_fraction * 2**64


def line_hashes(text: str, min_chars: int) -> np.ndarray:
    """uint64, one for each line of at least `min_chars` characters."""
    lines = [line.encode("utf-8", "surrogatepass") for line in text.split("\n") if len(line) >= min_chars]
    digests = b"".join(hashlib.blake2b(line, digest_size=8).digest() for line in lines)
    return np.frombuffer(digests, ">u8").astype(np.uint64)
