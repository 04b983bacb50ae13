"""The stages of cleaning a corpus. Each is a number of tasks that any process can do, in any order, on any machine that
sees the work folder; what a task makes appears whole or not at all, and is its own mark that it was done.

1. `clean`, a task a raw file, or several for a large one: cleaned documents in pieces, with hashes to tell duplicates.
2. `repeats`, a task a kind of hash and part of its range: which came before, in the order of the recipe.
3. `held_out`, one task, where the recipe asks for it: by what text of the validation documents is found elsewhere.
4. `write`, a task a few pieces: the documents that stay, by split.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from janeox.atomic import new_file, new_folder
from janeox.config import CorpusConfig
from janeox.corpus.characters import script_counts
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.contamination import HELD_OUT, Runs, evaluation_runs
from janeox.corpus.drops import Drops
from janeox.corpus.pieces import (
    PIECE_CHARS,
    PieceWriter,
    is_valid,
    kinds,
    piece_documents,
    read_array,
)
from janeox.corpus.read import BadRows, readable_documents
from janeox.corpus.repeats import find_repeats, num_parts, repeats_of
from janeox.corpus.tally import SPLITS, Tally, dropped_by_rule, text_hash

STAGES = ("clean", "repeats", "held_out", "write")
SHARE_BYTES = 1 << 29
"""Of a raw file. A larger one is cleaned by several tasks: each unpacks all of it, since no archive can be entered in
its middle, and cleans every so many-th piece, which takes many times as long."""
PIECES_PER_SHARD = 8


@dataclass(frozen=True)
class Task:
    """A task of any stage.

    Args:
        name: of its result within the stage.
        file: of `clean` and `write`: the number of the raw file.
        share: of `clean`: (number, of how many); of `repeats`: the part of the range.
        kind: of hash.
        pieces: of `write`: numbers and folders.
    """

    name: str
    file: int = 0
    share: tuple[int, int] = (0, 1)
    kind: str = ""
    pieces: tuple[tuple[int, Path], ...] = ()


class Work:
    """The work folder of a corpus: where each task's result is, and what is done there.

    Args:
        files: (source, raw file), in the order of the recipe.
    """

    def __init__(self, folder: Path, config: CorpusConfig, files: list[tuple[str, Path]]):
        self.folder, self.config, self.files = folder, config, files

    def tasks(self, stage: str) -> list[Task]:
        """Those of `repeats` and `write` are known once `clean` is done."""
        if stage == "clean":
            shares = [-(-path.stat().st_size // SHARE_BYTES) or 1 for _, path in self.files]
            return [
                Task(f"{file:05d}-{share:03d}", file, (share, count))
                for file, count in enumerate(shares)
                for share in range(count)
            ]
        if stage == "held_out":
            return [Task("hashes")] if self.config.decontaminate_valid else []
        pieces = self.pieces()
        if stage == "repeats":
            parts = {kind: num_parts([piece / kind for piece in pieces]) for kind in kinds(self.config) if pieces}
            return [
                Task(f"{kind}-{part:05d}", share=(part, count), kind=kind)
                for kind, count in parts.items()
                for part in range(count)
            ]
        found = []
        for file, numbered in groupby(enumerate(pieces), lambda piece: int(piece[1].parent.name[:5])):
            those = tuple(numbered)
            for first in range(0, len(those), PIECES_PER_SHARD):
                shard = those[first : first + PIECES_PER_SHARD]
                found.append(Task(f"{file:05d}-{first // PIECES_PER_SHARD:05d}", file, pieces=shard))
        return found

    def pieces(self) -> list[Path]:
        """The folders of all pieces, in the order of the recipe."""
        found = (self.folder / "clean").glob("[0-9]*/[0-9]*")
        return sorted(found, key=lambda piece: (piece.parent.name[:5], piece.name))

    def result(self, stage: str, task: Task) -> Path:
        """What a task makes."""
        return self.folder / stage / task.name

    @cached_property
    def evaluation(self) -> Runs:
        """By what text of the evaluation sets is found."""
        return evaluation_runs(self.config.decontaminate)

    @cached_property
    def held_out(self) -> Runs:
        """By what text of the validation documents is found; `held_out` must be done."""
        tasks = self.tasks("held_out")
        return Runs({HELD_OUT: read_array(self.result("held_out", tasks[0]))} if tasks else {})

    def do(self, stage: str, task: Task, advance: Any = lambda num_bytes: None) -> None:
        """Does one task, unless it is done.

        Raises:
            JaneoxError: a raw file cannot be read, or the disk is full.
        """
        result = self.result(stage, task)
        if result.exists():
            return
        if stage == "clean":
            _clean(self, task, advance)
        elif stage == "repeats":
            with new_file(result) as new:
                find_repeats([piece / task.kind for piece in self.pieces()], *task.share, new)
        elif stage == "held_out":
            with new_file(result) as new:
                found = [read_array(piece / "held_out") for piece in self.pieces()]
                np.unique(np.concatenate([np.empty(0, np.uint64), *found])).tofile(new)
        else:
            _write(self, task)

    def run(self, stage: str, rank: int = 0, world_size: int = 1) -> None:
        """Every `world_size`-th task of a stage, from the `rank`-th on."""
        for task in self.tasks(stage)[rank::world_size]:
            self.do(stage, task)


def _clean(work: Work, task: Task, advance: Any) -> None:
    config, (source, path), (share, shares) = work.config, work.files[task.file], task.share
    came, passed, dropped, drops = Tally(), Tally(), dropped_by_rule(), Drops()
    bad_rows = BadRows(stop=config.stop_on_bad_rows)
    cleaner = Cleaner(config)
    number = size = 0
    with new_folder(work.result("clean", task)) as folder:
        piece = None
        for document in readable_documents(path, source, bad_rows, advance):
            size += len(document.text)
            if number % shares == share:
                piece = piece or PieceWriter(folder / f"{number:06d}", config)
                came.add(document.text)
                text = cleaner.clean(document)
                reason = cleaner.reason_to_drop(text, document.kind)
                if not reason and work.evaluation.touch(text):
                    reason = "contaminated"
                if reason:
                    dropped[reason].add_example(text, document.where)
                    drops.add(reason, source, document.where, text)
                else:
                    passed.add(text)
                    piece.add(text, document.id, document.where)
            if size >= PIECE_CHARS:
                number, size = number + 1, 0
                if piece:
                    piece.close()
                piece = None
        if piece:
            piece.close()
        report = {"in": vars(came), "passed": vars(passed)}
        report["dropped"] = {name: vars(drop) for name, drop in dropped.items()}
        if share == 0:  # all shares meet the same ones
            report["bad_rows"] = {name: getattr(bad_rows, name) for name in ("count", "first", "damaged")}
        _save(folder, report, drops)


def _write(work: Work, task: Task) -> None:
    config, (source, _) = work.config, work.files[task.file]
    kept, dropped, drops = {split: Tally() for split in SPLITS}, dropped_by_rule(), Drops()
    scripts: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    num_pieces = len(work.pieces())
    parts = {kind: sorted((work.folder / "repeats").glob(f"{kind}-*")) for kind in kinds(config)}
    with new_folder(work.result("write", task)) as folder, ExitStack() as stack:
        shards = {split: stack.enter_context(_shard(folder / split)) for split in SPLITS}
        for place, piece in task.pieces:
            repeated = {
                kind: set(read_array(piece / f"{kind}-again", np.uint32).tolist()).union(
                    *(repeats_of(file, place, num_pieces).tolist() for file in files)
                )
                for kind, files in parts.items()
            }
            line = 0
            for number, document in enumerate(piece_documents(piece, source)):
                text, reason = document.text, None
                split = "valid" if is_valid(text_hash(text), config) else "train"
                if config.repeated_lines:
                    text, line = _without(text, repeated["line"], line, config.repeated_lines)
                if number in repeated["text"]:
                    reason = "duplicate"
                elif config.near_duplicates and number in repeated["near"]:
                    reason = "near_duplicate"
                elif len(text) < config.min_chars:
                    reason = "repeated_elsewhere"
                elif split == "train" and work.held_out.touch(text):
                    reason = "in_validation"
                if reason:
                    dropped[reason].add_example(document.text, document.where)
                    drops.add(reason, source, document.where, document.text)
                    continue
                kept[split].add(text)
                scripts.update(script_counts(text))
                lengths[str(2 ** (len(text) - 1).bit_length())] += 1
                row = json.dumps({"text": text, "id": document.id}, ensure_ascii=False)
                shards[split].write(row.encode("utf-8") + b"\n")
        report: dict[str, Any] = {split: vars(tally) for split, tally in kept.items()}
        report["dropped"] = {name: vars(drop) for name, drop in dropped.items()}
        report["scripts"], report["lengths"] = dict(scripts), dict(lengths)
        _save(folder, report, drops)


def _save(folder: Path, report: dict[str, Any], drops: Drops) -> None:
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    drops.save(folder / "drops.json")


def _without(text: str, repeated: set[int], first: int, min_chars: int) -> tuple[str, int]:
    """The text without those of its long lines that came before, and the number of the next document's first.

    Args:
        first: the number of its first long line in the piece.
    """
    kept = []
    for line in text.split("\n"):
        long = len(line) >= min_chars
        if not long or first not in repeated:
            kept.append(line)
        first += long
    return "\n".join(kept), first


@contextmanager
def _shard(path: Path) -> Iterator[BinaryIO]:
    """`path`.jsonl.gz; not there if nothing was written."""
    path = path.with_name(f"{path.name}.jsonl.gz")
    # No name and no time in the header: the same documents give the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as file:
        yield cast(BinaryIO, file)
        empty = file.tell() == 0
    if empty:
        path.unlink()
