"""The verbs `generate` and `evaluate`."""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from janeox.config import SamplingConfig
from janeox.corpus.document import Document
from janeox.corpus.pipeline import cleaned
from janeox.corpus.read import BadRows, read_documents
from janeox.errors import JaneoxError
from janeox.evaluate import Score
from janeox.lm import load
from janeox.progress import progress
from janeox.settings import Evaluate, Generate


def newest_model() -> Path:
    """The model folder of the run under `runs/` that was saved last.

    Raises:
        JaneoxError: there is none.
    """
    found = sorted(Path("runs").glob("*/model/config.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise JaneoxError("no model under runs/ here; name one with --model FOLDER_OR_HUB_ID, or train one: janeox run")
    print(f"model: {found[-1].parent}", file=sys.stderr)
    return found[-1].parent


def run_generate(settings: Generate) -> None:
    """The verb `generate`: prints the prompt and its continuation as it comes."""
    prompt = sys.stdin.read() if settings.prompt == "-" else settings.prompt
    sampling = {field.name: getattr(settings, field.name) for field in fields(SamplingConfig)}
    lm = load(settings.model or newest_model(), device=settings.device, dtype=settings.dtype)
    print(prompt, end="", flush=True)
    for part in lm.stream(prompt, **sampling):
        print(part, end="", flush=True)
    print()


def run_evaluate(settings: Evaluate) -> None:
    """The verb `evaluate`: a table of perplexity and bits per byte, by file."""
    folder = settings.model or newest_model()
    lm = load(folder, device=settings.device, dtype=settings.dtype)
    scores: dict[str, Score] = {}
    bad_rows = BadRows()
    with progress("evaluate", unit="documents") as bar:
        for name, documents in _documents(settings.input, Path(folder), bad_rows):
            for document in documents:
                scores[name] = scores.get(name, Score()) + lm.score(document.text, settings.stride)
                bar.advance(1, note=name)
    if not scores:
        raise JaneoxError(f"{', '.join(settings.input) or folder}: no document to evaluate on")
    if bad_rows.count:
        print(f"{bad_rows.count} malformed rows were left out, the first: {bad_rows.first[0]}", file=sys.stderr)
    Console().print(score_table(scores))


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


def score_table(scores: dict[str, Score]) -> Table:
    """Scores by name, and their sum, for the terminal."""
    table = Table(title="Perplexity")
    for column in ("text", "tokens", "bytes", "loss", "perplexity", "bits per byte"):
        table.add_column(column, justify="left" if column == "text" else "right")
    rows = scores if len(scores) == 1 else scores | {"all": sum(scores.values(), Score())}
    for name, score in rows.items():
        numbers = (f"{score.loss:.4f}", f"{score.perplexity:.2f}", f"{score.bits_per_byte:.4f}")
        table.add_row(name, f"{score.num_tokens:,}", f"{score.num_bytes:,}", *numbers)
    return table
