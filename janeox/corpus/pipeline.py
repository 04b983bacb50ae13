"""Raw files → a folder of clean, distinct documents, split into train and valid, with a report of what happened."""

import glob
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from janeox.atomic import new_file, new_folder
from janeox.config import CorpusConfig
from janeox.corpus.contamination import evaluation_files
from janeox.corpus.document import Document
from janeox.corpus.drops import Drops
from janeox.corpus.page import write_page
from janeox.corpus.pieces import PIECE_CHARS, kinds
from janeox.corpus.read import BadRows, known, read_documents
from janeox.corpus.repeats import PART, group_sizes
from janeox.corpus.stages import PIECES_PER_SHARD, SHARE_BYTES, STAGES, Task, Work
from janeox.corpus.tally import EXAMPLES, SPLITS, summed
from janeox.errors import JaneoxError
from janeox.progress import progress

REPORT = "report.json"
FIGURES = ("files", "in", "passed", *SPLITS, "scripts", "lengths")
"""Of each source, in the report: raw documents; those that the rules kept; those that were no repetition, by split; and
of these the characters by script, and the documents by length, the largest of a class."""
BYTES_PER_WORKER = 1 << 23
"""Of raw files; with less to do, a process more does not pay."""


def clean_corpus(config: CorpusConfig, out: Path) -> dict[str, Any]:
    """Cleans every source into `out/{train,valid}/SOURCE-NNNNN.jsonl.gz`; returns what `out/report.json` says.

    `out/report.html` shows the same as a page.

    Of documents with one text, or nearly one, the first in the order of the recipe stays. Whether a document is held
    out depends on its text alone, so adding data moves none between the splits. A sample of what each rule dropped is
    in `out/dropped/RULE.jsonl`. The same input gives the same bytes, with any number of workers.

    Finished tasks stand in a work folder beside `out`, `.NAME.work`, until all is done; after a kill, Ctrl-C or an
    error the next call with the same settings and files goes on from them. Memory: that of a task (`stages.py`), and
    nothing that grows with the corpus.

    Raises:
        JaneoxError: a source matches no file or holds no document, a file cannot be read, nothing is left to train on,
            the disk is full, or `out` holds something else. `out` then is as it was.
    """
    work = prepare(config, out)
    workers = config.workers or _worth(work)
    try:
        for stage in STAGES:
            _run_stage(work, stage, workers)
        return assemble(work, out)
    except BaseException:
        if not any(work.folder.glob("*/*")):  # no task was finished: there is nothing to go on from
            shutil.rmtree(work.folder, ignore_errors=True)
        raise


def prepare(config: CorpusConfig, out: Path) -> Work:
    """The work folder for `out`. What it holds of other settings or other raw files is removed.

    Raises:
        JaneoxError: a source matches no file, or `out` holds something else than a cleaned corpus.
    """
    files = source_files(config)
    if out.exists() and not (out / REPORT).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise JaneoxError(f"{out}: exists and is not a cleaned corpus; name another folder or remove it")
    named = [(name, path) for name, paths in files.items() for path in paths]
    lists = [path for path in (Path(file).expanduser() for file in config.word_lists.values()) if path.is_file()]
    others = [("", path) for path in (*evaluation_files(config.decontaminate), *lists)]
    states = [(name, str(path), path.stat().st_size, path.stat().st_mtime_ns) for name, path in named + others]
    settings = {name: value for name, value in asdict(config).items() if name != "workers"}
    sizes = (PIECE_CHARS, PIECES_PER_SHARD, SHARE_BYTES, PART)  # work of a version with others is not gone on from
    mark = hashlib.sha256(repr((states, settings, sizes)).encode("utf-8", "surrogateescape")).hexdigest()
    folder = out.with_name(f".{out.name}.work")
    fingerprint = folder / "fingerprint"
    if not fingerprint.is_file() or fingerprint.read_text() != mark:
        _remove(folder)
        with new_file(fingerprint) as new:
            new.write_text(mark)
    return Work(folder, config, named)


def _remove(folder: Path) -> None:
    """Removes a work folder, its fingerprint first, so that what a kill leaves of it is not taken for finished work."""
    if folder.is_dir():
        (folder / "fingerprint").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def assemble(work: Work, out: Path) -> dict[str, Any]:
    """The finished tasks of all stages → `out` and its report; the work folder is removed.

    Raises:
        JaneoxError: a source holds no document, or nothing is left to train on.
    """
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in work.config.sources}
    numbers = {(name, split): 0 for name in reports for split in SPLITS}
    drops = Drops()
    with new_folder(out) as folder:
        for split in SPLITS:
            (folder / split).mkdir()
        for name, path in work.files:
            reports[name].append({"files": [path.name]})
        for stage in ("clean", "write"):
            for task in work.tasks(stage):
                name, done = work.files[task.file][0], work.result(stage, task)
                reports[name].append(json.loads((done / "report.json").read_text(encoding="utf-8")))
                drops.merge(done / "drops.json")
                for split in SPLITS if stage == "write" else ():
                    shard = done / f"{split}.jsonl.gz"
                    if shard.exists():
                        os.link(shard, folder / split / f"{name}-{numbers[name, split]:05d}.jsonl.gz")
                        numbers[name, split] += 1
        report: dict[str, Any] = {
            name: getattr(work.config, name) for name in ("preset", "min_chars", "valid_fraction")
        }
        recipe = {name: value for name, value in asdict(work.config).items() if name != "workers"}
        report["recipe"] = recipe | {"decontaminate": list(work.config.decontaminate)}
        report["sources"] = sources = {name: _source_report(parts) for name, parts in reports.items()}
        report["groups"] = _group_sizes(work)
        for name, source in sources.items():
            if not source["in"]["documents"]:
                raise _empty(work, f"source {name} holds no document; {_why_empty({name: source})}")
        if not any(source["train"]["documents"] for source in sources.values()):
            raise _empty(work, f"no document is left to train on; {_why_empty(sources)}")
        drops.write(folder)
        write_page(folder, report, {})
        (folder / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _remove(work.folder)
    return report


def _empty(work: Work, why: str) -> JaneoxError:
    """The error for a corpus with nothing in it, whose finished tasks nobody goes on from."""
    shutil.rmtree(work.folder, ignore_errors=True)
    return JaneoxError(f"empty corpus: {why}")


def _source_report(parts: list[dict[str, Any]]) -> dict[str, Any]:
    none = {"documents": 0, "chars": 0, "bytes": 0}
    report = summed([{"scripts": {}, "lengths": {}}, *({split: none} for split in SPLITS), *parts])
    for drop in report["dropped"].values():
        del drop["examples"][EXAMPLES:]
    del report["bad_rows"]["first"][20:]
    report["dropped"] = dict(sorted(report["dropped"].items()))
    return {key: report[key] for key in (*FIGURES, "dropped", "bad_rows")}


def _group_sizes(work: Work) -> dict[str, dict[str, int]]:
    """By kind of hash: the largest size of a class of groups → how many groups of equal hashes are in it."""
    found: dict[str, dict[str, int]] = {kind: {} for kind in kinds(work.config)}
    for task in work.tasks("repeats"):
        found[task.kind] = summed([found[task.kind], group_sizes(work.result("repeats", task))])
    return found


def _worth(work: Work) -> int:
    """The workers that have enough to do."""
    size = sum(path.stat().st_size for _, path in work.files)
    return max(1, min(os.cpu_count() or 1, len(work.tasks("clean")), size // BYTES_PER_WORKER))


_work: Work  # in a worker; it keeps what its tasks have in common
_counted: Any = None  # in a worker: bytes of raw files that all of them have read, shared


def _start_worker(work: Work, counter: Any) -> None:
    global _work, _counted
    _work, _counted = work, counter
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent was killed: the next call does its task anew, at the same place."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _do(stage: str, task: Task) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    if not parent.is_alive():  # the thread that watches it has not had its turn yet
        os._exit(1)

    def advance(num_bytes: int) -> None:
        with _counted.get_lock():
            _counted.value += num_bytes

    _work.do(stage, task, advance)


def _run_stage(work: Work, stage: str, workers: int) -> None:
    """All tasks of a stage that are not done yet, in this process or in several."""
    tasks = [task for task in work.tasks(stage) if not work.result(stage, task).exists()]
    in_bytes = stage == "clean"
    total = sum(work.files[task.file][1].stat().st_size for task in tasks) if in_bytes else len(tasks)
    with progress(f"corpus: {stage}", total, "bytes" if in_bytes else "tasks") as bar:
        if workers == 1 or len(tasks) < 2:
            for task in tasks:
                work.do(stage, task, bar.advance)
                bar.advance(0 if in_bytes else 1)
            return
        context = multiprocessing.get_context("spawn")
        counter = context.Value("q", 0)
        with ProcessPoolExecutor(workers, context, _start_worker, (work, counter)) as pool:
            waiting = {pool.submit(_do, stage, task) for task in tasks}
            try:
                while waiting:
                    done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    bar.advance((counter.value if in_bytes else len(tasks) - len(waiting)) - bar.done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


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


def _why_empty(sources: dict[str, Any]) -> str:
    parts = []
    for name, source in sources.items():
        reasons = [f"{drop['documents']} {reason}" for reason, drop in source["dropped"].items()]
        if source["bad_rows"]["count"]:
            reasons.append(f"{source['bad_rows']['count']} malformed rows, the first {source['bad_rows']['first'][0]}")
        reasons += source["bad_rows"]["damaged"][:1]
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
