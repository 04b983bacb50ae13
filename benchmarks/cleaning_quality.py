"""Precision and recall of each preset on the labelled documents: python -m benchmarks.cleaning_quality

Precision: of the documents that a preset keeps, the share that is labelled keep. Recall: of those labelled keep, the
share that it keeps. Junk found: of those labelled drop, the share that it drops. benchmarks/labelled/README.md says how
the documents were drawn and labelled.
"""

import csv
import hashlib
import json
import lzma
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import commit
from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.document import Document
from janeox.corpus.presets import PRESETS

FOLDER = Path(__file__).parent / "labelled"


def labelled() -> list[dict[str, Any]]:
    """Each document with its label, `keep` or `drop`, and the reason for it."""
    rows = [json.loads(row) for row in lzma.decompress((FOLDER / "texts.jsonl.xz").read_bytes()).splitlines()]
    with (FOLDER / "labels.tsv").open(encoding="utf-8", newline="") as file:
        labels = {row["sha256"]: row for row in csv.DictReader(file, delimiter="\t")}
    return [row | {key: labels[digest(row["text"])][key] for key in ("label", "reason")} for row in rows]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scores(rows: list[dict[str, Any]], preset: str) -> tuple[float, float, float]:
    cleaner = Cleaner(CorpusConfig(preset=preset))  # type: ignore[arg-type]
    counts = {(label, kept): 0 for label in ("keep", "drop") for kept in (True, False)}
    for row in rows:
        text = cleaner.clean(Document(row["text"], row["source"], row["id"], "", row["kind"]))
        counts[row["label"], cleaner.reason_to_drop(text, row["kind"]) is None] += 1
    kept, good = counts["keep", True] + counts["drop", True], counts["keep", True] + counts["keep", False]
    bad = counts["drop", True] + counts["drop", False]
    return tuple(  # type: ignore[return-value]
        part / whole if whole else float("nan")
        for part, whole in ((counts["keep", True], kept), (counts["keep", True], good), (counts["drop", False], bad))
    )


def main() -> None:
    rows = labelled()
    parts = {"all": rows} | {
        f"{stratum} {source}".strip(): [
            r for r in rows if r["stratum"] == stratum and (not source or r["source"] == source)
        ]
        for stratum, source in (
            ("random", "mc4"),
            ("random", "wiki"),
            ("random", "cc100"),
            ("odd", ""),
            ("planted", ""),
        )
    }
    table = Table(title=f"keep/drop on {len(rows)} labelled documents, {commit()}")
    for column in ("documents", "keep", "drop", "preset", "precision", "recall", "junk found"):
        table.add_column(column, justify="left" if column in ("documents", "preset") else "right")
    for name, part in parts.items():
        keep = sum(row["label"] == "keep" for row in part)
        for preset in PRESETS:
            shares = (f"{share:.1%}" if share == share else "" for share in scores(part, preset))
            table.add_row(name, str(keep), str(len(part) - keep), preset, *shares)
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
