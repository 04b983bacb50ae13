"""The stages of cleaning a corpus. Each is a number of tasks that any process can do, in any order, on any machine that
sees the work folder; what a task makes appears whole or not at all, and is its own mark that it was done.

1. `clean`, a task a raw file: cleaned documents, and what is needed to tell duplicates: hashes.
2. `repeats`, a task a kind of hash and part of its range: which entries came before, in the order of the recipe.
3. `held_out`, one task, where the recipe asks for it: by what text of the validation documents is found elsewhere.
4. `write`, a task a raw file: the documents that stay, by split.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from janeox.atomic import new_file, new_folder
from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.contamination import HELD_OUT, Runs, evaluation_runs, held_out_hashes
from janeox.corpus.document import Document
from janeox.corpus.drops import Drops
from janeox.corpus.near import band_keys
from janeox.corpus.read import BadRows, read_documents
from janeox.corpus.repeats import is_repeat, kinds, line_hashes, num_parts, read_array, repeats_in
from janeox.corpus.tally import SPLITS, Tally, dropped_by_rule, text_hash

STAGES = ("clean", "repeats", "held_out", "write")
SHARD_BYTES = 2**28
"""Text bytes after which a split's next file begins."""


class Work:
    """The work folder of a corpus: where each task's result is, and what is done there.

    Args:
        files: (source, raw file) of each task of `clean` and `write`, in the order of the recipe.
    """

    def __init__(self, folder: Path, config: CorpusConfig, files: list[tuple[str, Path]]):
        self.folder, self.config, self.files = folder, config, files

    def cleaned(self, task: int) -> Path:
        return self.folder / "clean" / f"{task:05d}"

    def written(self, task: int) -> Path:
        return self.folder / "write" / f"{task:05d}"

    def tasks(self, stage: str) -> list[Any]:
        """What `do` takes for each task of a stage. Those of `repeats` are known once `clean` is done."""
        if stage == "held_out":
            return [0] if self.config.decontaminate_valid else []
        if stage != "repeats":
            return list(range(len(self.files)))
        return [
            (kind, column, part)
            for kind, columns in kinds(self.config)
            for column in range(columns)
            for part in range(num_parts(self.hashes(kind, column)))
        ]

    def hashes(self, kind: str, column: int = 0) -> list[Path]:
        """The files with one column of a kind of hash, in the order of the recipe."""
        return [self.cleaned(task) / f"{kind}-{column:03d}" for task in range(len(self.files))]

    def result(self, stage: str, task: Any) -> Path:
        """What a task makes."""
        if stage == "repeats":
            kind, column, part = task
            return self.folder / "repeats" / f"{kind}-{column:03d}-{part:05d}"
        if stage == "held_out":
            return self.folder / "held_out"
        return self.cleaned(task) if stage == "clean" else self.written(task)

    def do(self, stage: str, task: Any, advance: Any = lambda num_bytes: None) -> None:
        """Does one task, unless it is done.

        Raises:
            JaneoxError: a raw file cannot be read, or the disk is full.
        """
        if self.result(stage, task).exists():
            return
        if stage == "clean":
            _clean(self, task, advance)
        elif stage == "repeats":
            kind, column, part = task
            with new_file(self.result(stage, task)) as new:
                repeats_in(self.hashes(kind, column), part).tofile(new)
        elif stage == "held_out":
            with new_file(self.result(stage, task)) as new:
                np.unique(np.concatenate([read_array(path) for path in self.hashes("held_out")])).tofile(new)
        else:
            _write(self, task)

    def run(self, stage: str, rank: int = 0, world_size: int = 1) -> None:
        """Every `world_size`-th task of a stage, from the `rank`-th on."""
        for task in self.tasks(stage)[rank::world_size]:
            self.do(stage, task)


def _clean(work: Work, task: int, advance: Any) -> None:
    config, (source, path) = work.config, work.files[task]
    came, dropped, drops = Tally(), dropped_by_rule(), Drops()
    bad_rows = BadRows(stop=config.stop_on_bad_rows)
    cleaner = Cleaner(config)
    evaluation = evaluation_runs(config.decontaminate)
    with new_folder(work.cleaned(task)) as folder:
        with ExitStack() as stack:
            kept = stack.enter_context(gzip.open(folder / "documents", "wb", compresslevel=1))
            hashes = {
                kind: [stack.enter_context((folder / f"{kind}-{column:03d}").open("wb")) for column in range(columns)]
                for kind, columns in (*kinds(config), ("held_out", 1))
            }
            for document in read_documents(path, source, bad_rows, advance):
                came.add(document.text)
                text = cleaner.clean(document)
                reason = cleaner.reason_to_drop(text, document.kind)
                if not reason and evaluation.touch(text):
                    reason = "contaminated"
                if reason:
                    dropped[reason].add_example(text, document.where)
                    drops.add(reason, source, document.where, text)
                    continue
                row = json.dumps([text, document.id, document.where], ensure_ascii=False)
                kept.write(row.encode("utf-8", "surrogatepass") + b"\n")
                key = np.uint64(text_hash(text))
                hashes["text"][0].write(key.tobytes())
                if config.near_duplicates:
                    keys = band_keys(text, config.minhash_chars, config.minhash_bands, config.minhash_rows)
                    for file, band in zip(hashes["near"], keys, strict=True):
                        file.write(band.tobytes())
                if config.repeated_lines:
                    hashes["line"][0].write(line_hashes(text, config.repeated_lines).tobytes())
                if config.decontaminate_valid and _is_valid(int(key), config):
                    hashes["held_out"][0].write(held_out_hashes(text).tobytes())
        report = {"in": vars(came), "dropped": {name: vars(drop) for name, drop in dropped.items()}}
        report["bad_rows"] = {"count": bad_rows.count, "first": bad_rows.first}
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
        drops.save(folder / "drops.json")


def _write(work: Work, task: int) -> None:
    config, (source, _) = work.config, work.files[task]
    kept, dropped, drops = {split: Tally() for split in SPLITS}, dropped_by_rule(), Drops()
    repeated = {}
    for kind, _ in kinds(config):
        counts = [len(read_array(file)) for file in work.hashes(kind)]
        files = [work.result("repeats", name) for name in work.tasks("repeats") if name[0] == kind]
        repeated[kind] = is_repeat(files, sum(counts[:task]), counts[task])
    held_out = Runs({HELD_OUT: read_array(work.result("held_out", 0))}) if config.decontaminate_valid else Runs({})
    line = 0
    with new_folder(work.written(task)) as folder, ExitStack() as stack:
        shards = {split: stack.enter_context(_Shards(folder, split)) for split in SPLITS}
        for number, document in enumerate(cleaned_documents(work.cleaned(task), source)):
            text, reason = document.text, None
            split = "valid" if _is_valid(text_hash(text), config) else "train"
            if config.repeated_lines:
                count = len(line_hashes(text, config.repeated_lines))
                text = _without(text, repeated["line"][line : line + count], config.repeated_lines)
                line += count
            if repeated["text"][number]:
                reason = "duplicate"
            elif config.near_duplicates and repeated["near"][number]:
                reason = "near_duplicate"
            elif len(text) < config.min_chars:
                reason = "repeated_elsewhere"
            elif split == "train" and held_out.touch(text):
                reason = "in_validation"
            if reason:
                dropped[reason].add_example(document.text, document.where)
                drops.add(reason, source, document.where, document.text)
                continue
            shards[split].write({"text": text, "id": document.id}, kept[split].add(text))
        report: dict[str, Any] = {split: vars(tally) for split, tally in kept.items()}
        report["dropped"] = {name: vars(drop) for name, drop in dropped.items()}
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
        drops.save(folder / "drops.json")


def cleaned_documents(folder: Path, source: str) -> Iterator[Document]:
    """The documents that a task of `clean` kept, in the order of the raw file."""
    with gzip.open(folder / "documents", "rb") as file:
        for line in file:
            text, id_, where = json.loads(line)
            yield Document(text, source, id_, where)


def _is_valid(key: int, config: CorpusConfig) -> bool:
    return key < config.valid_fraction * 2**64


def _without(text: str, repeated: np.ndarray, min_chars: int) -> str:
    """The text without those of its long lines that came before."""
    flags = iter(repeated.tolist())
    return "\n".join(line for line in text.split("\n") if len(line) < min_chars or not next(flags))


class _Shards:
    """Numbered `SPLIT-NNNNN.jsonl.gz` of a task; a file is made when its first row comes."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        self.number = 0
        self.room = 0
        self.file: gzip.GzipFile | None = None

    def write(self, row: dict[str, str], num_bytes: int) -> None:
        if self.file is None or self.room <= 0:
            self._close()
            path = self.folder / f"{self.split}-{self.number:05d}.jsonl.gz"
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
