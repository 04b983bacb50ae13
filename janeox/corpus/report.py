"""What cleaning did, for a reader in a terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janeox.corpus import explain
from janeox.corpus.page import PAGE
from janeox.corpus.pipeline import clean_corpus
from janeox.settings.corpus import Clean


def table(report: dict[str, Any]) -> Table:
    """A report of `clean_corpus` as a table: a line per source, and their sum; below it what was dropped and why."""
    reasons = [
        f"dropped from {name}: "
        + ", ".join(f"{drop['documents']:,} {rule}" for rule, drop in source["dropped"].items())
        for name, source in report["sources"].items()
        if source["dropped"]
    ]
    view = Table(title="corpus", caption="\n".join(reasons), caption_justify="left")
    view.add_column("source")
    for column in ("docs in", "chars in", "dropped", "train", "valid", "chars out", "bad rows"):
        view.add_column(column, justify="right")
    total = [0] * 7
    for name, source in report["sources"].items():
        train, valid = source["train"], source["valid"]
        numbers = [
            source["in"]["documents"],
            source["in"]["chars"],
            source["in"]["documents"] - train["documents"] - valid["documents"],
            train["documents"],
            valid["documents"],
            train["chars"] + valid["chars"],
            source["bad_rows"]["count"],
        ]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        view.add_row(name, *_cells(numbers))
    if len(report["sources"]) > 1:
        view.add_section()
        view.add_row("all", *_cells(total))
    return view


def _cells(numbers: list[int]) -> list[str]:
    chars = (1, 5)  # places of the two columns that count characters
    return [f"{n / 1e6:,.2f} M" if place in chars else f"{n:,}" for place, n in enumerate(numbers)]


def run_clean(settings: Clean) -> None:
    """The verb `clean`: cleans the recipe's sources into the run's corpus/, prints what came of it and what is next."""
    if settings.explain:
        explain.show(settings.explain, settings.corpus)
        return
    out = settings.out / "corpus"
    report = clean_corpus(settings.corpus, out)
    console = Console()
    console.print(table(report))
    show_hints(report, out)


def show_hints(report: dict[str, Any], out: Path) -> None:
    """Points out what deserves a look (damaged files, malformed rows, no validation split), then the next command."""
    for source in report["sources"].values():
        for file in source["bad_rows"]["damaged"]:
            print(f"damaged: {file}")
        for row in source["bad_rows"]["first"][:3]:
            print(f"malformed: {row}")
    if report["valid_fraction"] and not any(source["valid"]["documents"] for source in report["sources"].values()):
        print("no document was held out for validation; raise corpus.valid_fraction")
    print(f"corpus: {out}  (what was dropped and why: {out / PAGE}, {out / 'report.json'}, {out / 'dropped'})")
    print("next:   janeox train-tokenizer RECIPE.toml")
