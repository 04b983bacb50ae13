"""The verb `evaluate`."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.corpus.document import Document
from janeox.corpus.pipeline import cleaned
from janeox.corpus.read import BadRows, read_documents
from janeox.errors import JaneoxError
from janeox.evaluate.backend import BackendScorer
from janeox.evaluate.published import Published, published
from janeox.evaluate.rival import TransformersScorer
from janeox.evaluate.score import Score, Scorer, interval, score_packed, score_texts, window_of
from janeox.lm import load, newest_model
from janeox.progress import progress
from janeox.settings.evaluate import Evaluate


def run_evaluate(settings: Evaluate) -> None:
    """The verb `evaluate`: a table of perplexity and bits per byte, by file.

    Raises:
        JaneoxError: no model, no text, or a context or stride that the model does not allow.
    """
    folder = settings.model or newest_model()
    scorer = open_scorer(str(folder), settings)
    window_of(scorer, settings.stride, settings.context)  # says what is wrong before any text is read
    scores: dict[str, list[Score]] = {}
    figures: dict[str, Published] = {}
    bad_rows = BadRows()
    empty = Empty()
    with progress("evaluate", unit="documents") as bar:
        for name, documents in input_documents(settings.input, Path(folder), bad_rows):
            texts: Iterable[str] = (document.text for document in documents if empty.keep(document.text))
            if settings.published:
                texts = list(texts)
            score = score_texts if settings.documents == "apart" else score_packed
            for row in score(scorer, texts, settings.stride, settings.context):
                scores.setdefault(name, []).append(row)
                bar.advance(1, note=name)
            if settings.published and name in scores:
                figures[name] = published(scorer, texts)
    if empty.count:
        print(f"{empty.count} empty documents were left out", file=sys.stderr)
    if bad_rows.count:
        print(f"{bad_rows.count} malformed rows were left out, the first: {bad_rows.first[0]}", file=sys.stderr)
    if not scores:
        raise JaneoxError(f"{', '.join(settings.input) or folder}: no document to evaluate on")
    report = score_report(scores)
    for name, figure in figures.items():
        report[name] |= {"published_definitions": asdict(figure)}
    window = window_of(scorer, settings.stride, settings.context)
    how = f"documents {settings.documents}, context {window.context}, stride {window.stride}"
    console = Console()
    console.print(score_table(report, how))
    if figures:
        console.print(_published_table(figures))
    if settings.json_file:
        with new_file(settings.json_file) as new:
            table = {"model": str(folder), "documents": settings.documents, **window._asdict(), "scores": report}
            new.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


class Empty:
    """Counts the documents without text, which have no bytes to divide by."""

    count = 0

    def keep(self, text: str) -> bool:
        self.count += not text
        return bool(text)


def open_scorer(name: str, settings: Evaluate) -> Scorer:
    """The model that the settings name, with its tokenizer.

    Raises:
        JaneoxError: it cannot be opened, or `bits` do not go with the engine, the model or this machine.
    """
    if settings.engine == "transformers":
        if settings.bits:
            raise JaneoxError("bits are of the engine janeox; transformers scores in dtype")
        return TransformersScorer(name, settings.device, settings.dtype)
    lm = load(name, device=settings.device, dtype=settings.dtype, bits=settings.bits)
    return BackendScorer(lm.engine(8).backend, lm.tokenizer) if settings.bits else lm.scorer()


FIGURES = {
    "loss": lambda score: score.loss,
    "perplexity": lambda score: score.perplexity,
    "bits_per_byte": lambda score: score.bits_per_byte,
    "bits_per_char": lambda score: score.bits_per_char,
}


def score_report(scores: dict[str, list[Score]]) -> dict[str, Any]:
    """By name, and in all: counts, and each figure with its 95 % interval over documents."""
    rows = scores if len(scores) == 1 else scores | {"all": [score for part in scores.values() for score in part]}
    report: dict[str, Any] = {}
    for name, part in rows.items():
        total = sum(part, Score())
        report[name] = {"documents": len(part), "tokens": total.num_tokens, "bytes": total.num_bytes}
        for figure, of in FIGURES.items():
            report[name] |= {figure: of(total), f"{figure}_interval": interval(part, of)}
    return report


def input_documents(files: tuple[str, ...], model: Path, bad_rows: BadRows) -> Iterator[tuple[str, Iterator[Document]]]:
    """(name, documents) of each input."""
    if files:
        for file in files:
            yield Path(file).name, read_documents(Path(file), Path(file).name, bad_rows)
        return
    corpus = model.parent / "corpus"
    if not corpus.is_dir():
        raise JaneoxError(f"name the texts to evaluate {model} on: --input FILE …")
    yield from itertools.groupby(cleaned(corpus, "valid"), key=lambda document: document.source)


def score_table(report: dict[str, Any], how: str) -> Table:
    """The report for the terminal; in brackets the 95 % interval over documents."""
    caption = f"{how}; \\[95 % interval over documents]"
    table = Table(title="Perplexity", caption=caption, caption_justify="left")
    columns = ("text", "documents", "tokens", *(figure.replace("_", " ") for figure in FIGURES))
    for column in columns:
        table.add_column(column, justify="left" if column == "text" else "right")
    for name, row in report.items():
        cells = []
        for figure in FIGURES:
            digits = 2 if figure == "perplexity" else 4
            low, high = row[f"{figure}_interval"]
            span = "" if low is None else f"\n\\[{low:.{digits}f}, {high:.{digits}f}]"
            cells.append(f"{row[figure]:.{digits}f}{span}")
        table.add_row(name, f"{row['documents']:,}", f"{row['tokens']:,}", *cells)
    return table


def _published_table(figures: dict[str, Published]) -> Table:
    table = Table(title="Perplexity by published definitions, for comparison only", title_justify="left")
    for column in ("text", "rinna: mean of exp(batch)", "gpt-neox: packed windows", "gpt-neox: by characters"):
        table.add_column(column, justify="left" if column == "text" else "right")
    for name, figure in figures.items():
        table.add_row(name, *(f"{value:.2f}" for value in (figure.rinna, figure.gpt_neox, figure.gpt_neox_char)))
    return table
