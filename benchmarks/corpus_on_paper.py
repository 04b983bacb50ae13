"""What cleaning the full corpora would take, from the speed of each stage on a sample: core-hours, disk, wall-clock.

    python -m benchmarks.corpus_on_paper [FILE …] [--preset fineweb2]

FILES are one each of CC-100 (.xz), mC4 (.gz) and Wikipedia (.bz2), in this order; by default those under data/. Each is
cleaned by one process as a corpus of its own, with near-duplicates and text of the validation split looked for.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.corpus import ROOT, drain
from benchmarks.machine import header
from janeox.config import CorpusConfig
from janeox.corpus.pieces import ENTRY, PIECE_CHARS
from janeox.corpus.pipeline import prepare
from janeox.corpus.repeats import PART, find_repeats
from janeox.corpus.stages import PIECES_PER_SHARD, SHARE_BYTES, STAGES

CORES = 64
CORPORA = {"CC-100": (77e9, 15e9, 1), "mC4-ja": (830e9, 300e9, 1024), "jawiki": (36e9, 9e9, 14)}
"""Bytes of text and of the raw files, and the files. Text: 25.8 billion characters (arXiv 2404.17733) of 3 bytes; the
data set's page; an estimate: 9 GB of bzip2 unpack to about four times as much. Files of mC4: about 300 GB, from the
size of the same text as Parquet."""
TOKENS_PER_BYTE = 0.18
"""An estimate: about 0.55 tokens a character, 3 bytes a character."""
PAIRS = 200


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(path: Path, preset: str) -> dict[str, float]:
    """For a byte of raw text: seconds of each stage and of unpacking alone, bytes on the disk, hashes. Besides, the
    seconds that a part of the hashes costs for each piece, however few it has there (`pair`)."""
    with tempfile.TemporaryDirectory() as folder:
        config = CorpusConfig(
            {"s": str(path)},
            0.001,
            preset,
            near_duplicates=True,
            decontaminate_valid=True,
            workers=1,  # type: ignore[arg-type]
        )
        work = prepare(config, Path(folder) / "out")
        found = {stage: seconds(lambda stage=stage: work.run(stage)) for stage in STAGES}
        found["unpack"] = seconds(lambda: drain(path))
        files = [piece / kind for piece in work.pieces() for kind in ("text", "near")]
        found["hashes"] = sum(file.stat().st_size for file in files) / ENTRY.itemsize
        found |= {"pieces": size_of(work.folder / "clean"), "corpus": size_of(work.folder / "write")}
        reports = [work.result("clean", task) / "report.json" for task in work.tasks("clean")]
        came = sum(json.loads(report.read_text())["in"]["bytes"] for report in reports)
        pair = seconds(lambda: find_repeats([files[0]] * PAIRS, 7, 1 << 20, Path(folder) / "part")) / PAIRS
    return {name: value / came for name, value in found.items()} | {"pair": pair}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--preset", default="fineweb2")
    options = parser.parse_args()
    paths = options.files or [next((ROOT / "data" / name).iterdir()) for name in ("cc100", "mc4", "wiki")]
    print(header(), "\n")
    rates = {name: measure(path, options.preset) for name, path in zip(CORPORA, paths, strict=True)}
    print("MB of text a second and core   " + "".join(f"{name:>10}" for name in rates))
    for stage in ("unpack", *STAGES):
        print(f"  {stage:<28} " + "".join(f"{1e-6 / rate[stage]:10.1f}" for rate in rates.values()))
    pieces = sum(text / 3 / PIECE_CHARS + files for text, _, files in CORPORA.values())
    parts = sum(text * rates[name]["hashes"] for name, (text, _, _) in CORPORA.items()) / PART
    every_pair = 2 * pieces * parts * max(rate["pair"] for rate in rates.values())  # once to find, once to use
    print(f"\n{pieces:,.0f} pieces, {parts:,.0f} parts of the hashes\n")
    stages = {stage: 0.0 for stage in STAGES}
    longest = {stage: 0.0 for stage in STAGES}
    print("            core-hours   TB: raw  while cleaning  corpus  shards")
    disk_total = [0.0] * 4
    for name, (text, raw, files) in CORPORA.items():
        rate = rates[name]
        shares = math.ceil(raw / files / SHARE_BYTES)
        own = {stage: text * rate[stage] for stage in STAGES}
        own["clean"] += text * rate["unpack"] * (shares - 1)
        one_file = text / files * (rate["unpack"] + (rate["clean"] - rate["unpack"]) / shares)
        tasks = {"clean": one_file, "write": PIECES_PER_SHARD * PIECE_CHARS * 3 * rate["write"]}
        for stage in STAGES:
            stages[stage] += own[stage]
            longest[stage] = max(longest[stage], tasks.get(stage, 0))
        disk = [raw, text * rate["pieces"], text * rate["corpus"], 2 * TOKENS_PER_BYTE * text]
        disk_total = [a + b for a, b in zip(disk_total, disk, strict=True)]
        print(row(name, sum(own.values()), disk))
    stages["repeats"] += every_pair
    print(row("all", sum(stages.values()), disk_total))
    longest["held_out"] = stages["held_out"]  # one task
    print(f"\nof these {every_pair / 3600:.1f} core-hours for looking up each part of the hashes in each piece")
    print("hours on nodes of 64 cores: " + " + ".join(STAGES))
    for nodes in (1, 8, 64):
        hours = [max(stages[stage] / CORES / nodes, longest[stage]) / 3600 for stage in STAGES]
        print(f"{nodes:>3} nodes: {sum(hours):6.2f} = " + " + ".join(f"{value:.2f}" for value in hours))
    print(f"longest task of clean: {longest['clean'] / 3600:.2f} h, a share of CC-100's one file")


def row(name: str, core_seconds: float, disk: list[float]) -> str:
    raw, pieces, corpus, shards = (f"{size / 1e12:.2f}" for size in disk)
    return f"  {name:<8} {core_seconds / 3600:11.1f} {raw:>9} {pieces:>15} {corpus:>7} {shards:>7}"


if __name__ == "__main__":
    main()
