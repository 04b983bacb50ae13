"""A document as cleaning sees it: what is left of its text, and what each rule says of it."""

import itertools
import re
from math import inf
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from janeox.config import CorpusConfig
from janeox.corpus.cleaner import Cleaner
from janeox.corpus.document import Document
from janeox.corpus.presets import Rule
from janeox.corpus.read import BadRows, read_documents
from janeox.errors import JaneoxError

SHOWN = 400
"""Characters of the cleaned text that are printed."""


def find(name: str) -> Document:
    """The document that `FILE` or `FILE:N` names: the file's first, or its N-th, from 1, malformed rows not counted.

    Raises:
        JaneoxError: there is no such file or it cannot be read, or it holds fewer documents.
    """
    match = re.fullmatch(r"(.+):(\d+)", name)
    path, number = (Path(match[1]), int(match[2])) if match and not Path(name).exists() else (Path(name), 1)
    if number < 1:
        raise JaneoxError(f"{name}: documents are numbered from 1")
    document = next(itertools.islice(read_documents(path, path.name, BadRows()), number - 1, None), None)
    if document is None:
        raise JaneoxError(f"{path}: holds fewer than {number} documents")
    return document


def explanation(document: Document, config: CorpusConfig) -> Group:
    """The cleaned text's beginning, and a table of every rule of the preset; the first that fails decides."""
    cleaner = Cleaner(config)
    text = cleaner.clean(document)
    table = Table(title=f"{document.where}, {len(document.text):,} characters, {len(text):,} once cleaned")
    for column in ("rule", "figure", "measured", "value", "kept if", "source", "verdict"):
        table.add_column(column, justify="right" if column == "value" else "left")
    reason = None
    for verdict in cleaner.verdicts(text, document.kind):
        reason = reason or (None if verdict.keeps else verdict.rule.name)
        table.add_row(
            verdict.rule.name,
            verdict.rule.figure,
            verdict.rule.what,
            _number(verdict.value),
            _range(verdict.rule),
            verdict.rule.source,
            "" if verdict.keeps else "drop",
        )
    decision = f"dropped: {reason}" if reason else "kept, unless an equal text came before"
    return Group(Text(text[:SHOWN] + ("…" if len(text) > SHOWN else "")), table, Text(f"{config.preset}: {decision}"))


def show(name: str, config: CorpusConfig) -> None:
    """Prints the explanation of the document that `FILE` or `FILE:N` names."""
    Console().print(explanation(find(name), config))


def _range(rule: Rule) -> str:
    if rule.least == -inf:
        return f"≤ {_number(rule.most)}"
    return f"≥ {_number(rule.least)}" + (f", ≤ {_number(rule.most)}" if rule.most < inf else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and value > 1 else f"{value:.4g}"
