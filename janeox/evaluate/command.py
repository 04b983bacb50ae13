"""The verb `evaluate`."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.corpus.document import Document
from janeox.corpus.pipeline import cleaned
from janeox.corpus.read import BadRows, read_documents
from janeox.errors import JaneoxError
from janeox.evaluate.rival import TransformersScorer
from janeox.evaluate.score import GPTNeoXScorer, Score, Scorer, interval, score_texts
from janeox.lm import load, newest_model
from janeox.progress import progress
from janeox.settings.evaluate import Evaluate


def run_evaluate(settings: Evaluate) -> None:
    """The verb `evaluate`: a table of perplexity and bits per byte, by file.

    Raises:
        JaneoxError: no model, no text, or a stride that the model's context does not allow.
    """
    folder = settings.model or newest_model()
    if settings.engine == "transformers":
        scorer: Scorer = TransformersScorer(str(folder), settings.device, settings.dtype)
    else:
        lm = load(folder, device=settings.device, dtype=settings.dtype)
        scorer = GPTNeoXScorer(lm.model, lm.tokenizer)
    scores: dict[str, list[Score]] = {}
    bad_rows = BadRows()
    with progress("evaluate", unit="documents") as bar:
        for name, documents in _documents(settings.input, Path(folder), bad_rows):
            for score in score_texts(scorer, (document.text for document in documents), settings.stride):
                scores.setdefault(name, []).append(score)
                bar.advance(1, note=name)
    if not scores:
        raise JaneoxError(f"{', '.join(settings.input) or folder}: no document to evaluate on")
    if bad_rows.count:
        print(f"{bad_rows.count} malformed rows were left out, the first: {bad_rows.first[0]}", file=sys.stderr)
    Console().print(score_table(scores))
    if settings.json_file:
        with new_file(settings.json_file) as new:
            new.write_text(json.dumps(score_report(scores), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


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


def _documents(files: tuple[str, ...], model: Path, bad_rows: BadRows) -> Iterator[tuple[str, Iterator[Document]]]:
    """(name, documents) of each input."""
    if files:
        for file in files:
            yield Path(file).name, read_documents(Path(file), Path(file).name, bad_rows)
        return
    corpus = model.parent / "corpus"
    if not corpus.is_dir():
        raise JaneoxError(f"name the texts to evaluate {model} on: janeox evaluate FILE …")
    yield from itertools.groupby(cleaned(corpus, "valid"), key=lambda document: document.source)


def score_table(scores: dict[str, list[Score]]) -> Table:
    """The report for the terminal; in brackets the 95 % interval over documents."""
    table = Table(title="Perplexity", caption="\\[95 % interval over documents]", caption_justify="left")
    columns = ("text", "documents", "tokens", *(figure.replace("_", " ") for figure in FIGURES))
    for column in columns:
        table.add_column(column, justify="left" if column == "text" else "right")
    for name, row in score_report(scores).items():
        cells = []
        for figure in FIGURES:
            digits = 2 if figure == "perplexity" else 4
            low, high = row[f"{figure}_interval"]
            span = "" if low is None else f"\n\\[{low:.{digits}f}, {high:.{digits}f}]"
            cells.append(f"{row[figure]:.{digits}f}{span}")
        table.add_row(name, f"{row['documents']:,}", f"{row['tokens']:,}", *cells)
    return table
