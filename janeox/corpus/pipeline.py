"""Raw files → a folder of clean, distinct documents, split into train and valid, with a report of what happened."""

import glob
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janeox.atomic import new_folder
from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.document import Document
from janeox.corpus.drops import Drops
from janeox.corpus.read import BadRows, known, read_documents
from janeox.errors import JaneoxError
from janeox.progress import Progress, progress

REPORT = "report.json"
SPLITS = ("train", "valid")
SHARD_BYTES = 2**28
"""Text bytes after which a source's next file begins."""
EXAMPLES = 5
"""Dropped documents named in the report, per rule."""


def clean_corpus(config: CorpusConfig, out: Path) -> dict[str, Any]:
    """Cleans every source into `out/{train,valid}/SOURCE-NNNNN.jsonl.gz`; returns what `out/report.json` says.

    Of documents with one text the first in the order of the recipe stays. Whether a document is held out depends on
    its text alone, so adding data moves none between the splits. A sample of what each rule dropped is in
    `out/dropped/RULE.jsonl`. The same input gives the same bytes. Memory: about 80 bytes for each kept document (its
    hash), the sample (`drops.py`), and the longest document.

    Raises:
        JaneoxError: a source matches no file or holds no document, a file cannot be read, nothing is left to train on,
            the disk is full, or `out` holds something else. `out` then is as it was.
    """
    files = source_files(config)
    if out.exists() and not (out / REPORT).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise JaneoxError(f"{out}: exists and is not a cleaned corpus; name another folder or remove it")
    size = sum(path.stat().st_size for paths in files.values() for path in paths)
    seen: set[int] = set()
    with new_folder(out) as folder, progress("cleaning", size, "bytes") as bar:
        drops = Drops()
        sources = {name: _clean_source(name, paths, config, folder, seen, drops, bar) for name, paths in files.items()}
        for name, source in sources.items():
            if not source["in"]["documents"]:
                raise JaneoxError(f"empty corpus: source {name} holds no document; {_why_empty({name: source})}")
        report = {name: getattr(config, name) for name in ("preset", "min_chars", "valid_fraction")}
        report["sources"] = sources
        if not any(source["train"]["documents"] for source in sources.values()):
            raise JaneoxError(f"empty corpus: no document is left to train on; {_why_empty(sources)}")
        drops.write(folder)
        (folder / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return report


def source_files(config: CorpusConfig) -> dict[str, list[Path]]:
    """The files of each source, sorted by name. Of a folder, those with a corpus file's name are taken, at any depth.

    Raises:
        JaneoxError: there is no source, one has an unusable name, or one matches no file.
    """
    if not config.sources:
        raise JaneoxError('corpus.sources is empty; name the raw files: corpus.sources = {wiki = "raw/*.json.gz"}')
    files = {}
    for name, pattern in config.sources.items():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise JaneoxError(f"corpus.sources: {name!r} becomes part of file names; use letters, digits, _ . and -")
        path = Path(pattern).expanduser()
        if path.is_dir():
            files[name] = sorted(file for file in path.rglob("*") if file.is_file() and known(file))
        elif path.is_file():
            files[name] = [path]
        else:
            found = map(Path, glob.glob(str(path), recursive=True))
            files[name] = sorted(file for file in found if file.is_file())
        if not files[name]:
            raise JaneoxError(
                f"corpus.sources.{name} = {pattern!r} matches no corpus file; give a file, a glob or a folder "
                "of .txt, .json, .jsonl (plain or as .xz, .gz, .bz2, .zst) or .parquet files"
            )
    return files


@dataclass
class _Tally:
    documents: int = 0
    chars: int = 0
    bytes: int = 0

    def add(self, text: str, num_bytes: int) -> None:
        self.documents += 1
        self.chars += len(text)
        self.bytes += num_bytes


@dataclass
class _Dropped(_Tally):
    examples: list[str] = field(default_factory=list)


def _clean_source(
    name: str, paths: list[Path], config: CorpusConfig, folder: Path, seen: set[int], drops: Drops, bar: Progress
) -> dict[str, Any]:
    """Writes one source's documents; returns its part of the report. Adds to `seen` and `drops`."""
    came, kept = _Tally(), {split: _Tally() for split in SPLITS}
    dropped: dict[str, _Dropped] = {}
    bad_rows = BadRows(stop=config.stop_on_bad_rows)
    cleaner = Cleaner(config)
    with ExitStack() as stack:
        shards = {split: stack.enter_context(_Shards(folder / split, name)) for split in SPLITS}
        for path in paths:
            for document in read_documents(path, name, bad_rows, bar.advance):
                came.add(document.text, len(document.text.encode("utf-8")))
                text = cleaner.clean(document)
                encoded = text.encode("utf-8")
                key = text_hash(encoded)
                reason = cleaner.reason_to_drop(text, document.kind)
                if not reason and key in seen:
                    reason = "duplicate"
                if reason:
                    drop = dropped.setdefault(reason, _Dropped())
                    drop.add(text, len(encoded))
                    drops.add(reason, name, document.where, text)
                    if len(drop.examples) < EXAMPLES:
                        drop.examples.append(document.where)
                    continue
                seen.add(key)
                split = "valid" if key < config.valid_fraction * 2**64 else "train"
                kept[split].add(text, len(encoded))
                shards[split].write({"text": text, "id": document.id}, len(encoded))
    return {
        "files": [path.name for path in paths],
        "in": vars(came),
        **{split: vars(tally) for split, tally in kept.items()},
        "dropped": {reason: vars(tally) for reason, tally in sorted(dropped.items())},
        "bad_rows": {"count": bad_rows.count, "first": bad_rows.first},
    }


def text_hash(encoded: bytes) -> int:
    """64 bits of BLAKE2b of a text's UTF-8. They tell duplicates and choose the split.

    Among 6 billion documents one is expected to be taken for a duplicate that is none.
    """
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big")


class _Shards:
    """Numbered `SOURCE-NNNNN.jsonl.gz` of a split; a file is made when its first row comes."""

    def __init__(self, folder: Path, source: str):
        folder.mkdir(exist_ok=True)
        self.folder, self.source = folder, source
        self.number = 0
        self.room = 0
        self.file: gzip.GzipFile | None = None

    def write(self, row: dict[str, str], num_bytes: int) -> None:
        if self.file is None or self.room <= 0:
            self._close()
            path = self.folder / f"{self.source}-{self.number:05d}.jsonl.gz"
            # No name and no time in the header: the same documents give the same bytes.
            self.raw = path.open("wb")
            self.file = gzip.GzipFile("", "wb", compresslevel=4, fileobj=self.raw, mtime=0)
            self.number, self.room = self.number + 1, SHARD_BYTES
        self.room -= num_bytes
        self.file.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")

    def _close(self) -> None:
        if self.file is not None:
            try:
                self.file.close()
            finally:
                self.raw.close()

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()


def _why_empty(sources: dict[str, Any]) -> str:
    parts = []
    for name, source in sources.items():
        reasons = [f"{drop['documents']} {reason}" for reason, drop in source["dropped"].items()]
        if source["bad_rows"]["count"]:
            reasons.append(f"{source['bad_rows']['count']} malformed rows, the first {source['bad_rows']['first'][0]}")
        if source["valid"]["documents"]:
            reasons.append(f"{source['valid']['documents']} held out for validation")
        parts.append(f"{name}: {source['in']['documents']} read" + "".join(f", {reason}" for reason in reasons))
    return "; ".join(parts)


def read_report(out: Path) -> dict[str, Any]:
    """The report of a cleaned corpus.

    Raises:
        JaneoxError: `out` is missing or not a cleaned corpus.
    """
    if not (out / REPORT).is_file():
        what = "is not a cleaned corpus (it has no report.json)" if out.exists() else "no such folder"
        raise JaneoxError(f"{out}: {what}; make one with janeox clean")
    try:
        report: dict[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise JaneoxError(f"{out / REPORT}: damaged ({error}); clean it again") from error
    return report


def cleaned(out: Path, split: str) -> Iterator[Document]:
    """The documents of a split of a cleaned corpus, by source and in the order they were written.

    Raises:
        JaneoxError: `out` is missing or not a cleaned corpus, has no such split, or was changed since.
    """
    read_report(out)
    if split not in SPLITS:
        raise JaneoxError(f"split {split!r}: a cleaned corpus has {' and '.join(SPLITS)}")
    for path in sorted((out / split).glob("*.jsonl.gz")):
        bad_rows = BadRows()
        yield from read_documents(path, path.name.rsplit("-", 1)[0], bad_rows)
        if bad_rows.count:
            raise JaneoxError(f"{out / split}: damaged since it was cleaned: {bad_rows.first[0]}; clean it again")
