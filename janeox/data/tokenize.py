"""Clean documents → token shards."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from janeox.atomic import new_folder
from janeox.corpus.page import PAGE, write_page
from janeox.corpus.pipeline import SPLITS, cleaned, read_report
from janeox.data.shards import ShardFile, Shards, ShardWriter, write_manifest
from janeox.errors import JaneoxError
from janeox.progress import progress
from janeox.settings.tokenizer import Tokenize
from janeox.tokenizer import Tokenizer

BATCH = 256


def tokenize_corpus(corpus: Path, tokenizer: Tokenizer, out: Path) -> Shards:
    """Writes every split and source of a cleaned corpus as one shard each; every document ends with `</s>`.

    Raises:
        JaneoxError: `corpus` is not a cleaned corpus, or its training part is empty, or the disk is full.
    """
    files: list[ShardFile] = []
    eos = tokenizer.eos_token_id
    if eos is None:
        raise JaneoxError(f"{tokenizer.where}: has no </s>, with which every document must end")
    report = read_report(corpus)
    total = sum(source[split]["documents"] for source in report["sources"].values() for split in SPLITS)
    with new_folder(out) as folder, progress("tokenize", total, "documents") as bar:
        for split in SPLITS:
            for source, documents in itertools.groupby(cleaned(corpus, split), key=lambda document: document.source):
                row = ShardFile(split, source, f"{split}/{source}-00000", 0, 0, 0, 0)
                with ShardWriter(folder / row.name, tokenizer.vocab_size) as writer:
                    for texts in _batches(document.text for document in documents):
                        ids, lengths = tokenizer.arrays(texts)
                        for text, document in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
                            writer.append(np.append(document, ids.dtype.type(eos)))
                            row.num_documents += 1
                            row.num_tokens += len(document) + 1
                            row.num_chars += len(text)
                            row.num_bytes += len(text.encode())
                        bar.advance(len(texts), note=f"{split} {source}")
                files.append(row)
        if not any(row.split == "train" for row in files):
            raise JaneoxError(f"{corpus}: no training documents there")
        write_manifest(folder, tokenizer.vocab_size, eos, tokenizer.fingerprint, files)
    if (corpus / PAGE).exists():  # now it can tell the tokens, too
        tokens = {name: (0, 0) for name in report["sources"]}
        for row in files:
            number, chars = tokens[row.source]
            tokens[row.source] = (number + row.num_tokens, chars + row.num_chars)
        write_page(corpus, report, tokens)
    return Shards(out)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(itertools.islice(texts, BATCH)):
        yield batch


def summary(shards: Shards) -> Table:
    """The shards as a table for the terminal."""
    table = Table(title="Tokens")
    for column in ("split", "source", "documents", "tokens", "characters a token", "bytes a token"):
        table.add_column(column, justify="left" if column in ("split", "source") else "right")
    for file in shards.files:
        tokens = max(1, file.num_tokens)
        numbers = (f"{file.num_documents:,}", f"{file.num_tokens:,}")
        table.add_row(
            file.split, file.source, *numbers, f"{file.num_chars / tokens:.2f}", f"{file.num_bytes / tokens:.2f}"
        )
    return table


def load_tokenizer(folder: Path | None, run: Path) -> Tokenizer:
    """The tokenizer in `folder`, or the run's own.

    Raises:
        JaneoxError: there is none, or it is damaged.
    """
    folder = folder or run / "tokenizer"
    if not folder.exists():
        raise JaneoxError(f"{folder}: no such folder; make it with `janeox train-tokenizer`")
    return Tokenizer.load(folder)


def run_tokenize(settings: Tokenize) -> None:
    """The verb `tokenize`."""
    out = settings.out
    shards = tokenize_corpus(out / "corpus", load_tokenizer(settings.tokenizer_folder, out), out / "shards")
    Console().print(summary(shards))
    print(f"shards: {shards.folder}\nnext:   janeox pretrain RECIPE.toml")
