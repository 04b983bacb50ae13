"""The verb `quantize`: packed weights in a folder of their own, and their loss beside them."""

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from janeox.atomic import new_folder
from janeox.corpus.read import BadRows
from janeox.engine.native_backend import NativeBackend, NotCovered
from janeox.engine.packed_file import FILE, read_packed, write_packed
from janeox.engine.packing import packed_tensors
from janeox.errors import JaneoxError
from janeox.evaluate.backend import BackendScorer
from janeox.evaluate.command import input_documents
from janeox.evaluate.score import Score, score_texts
from janeox.lm import newest_model
from janeox.model import GPTNeoX
from janeox.progress import progress
from janeox.settings.native import Quantize
from janeox.tokenizer import Tokenizer
from janeox.weights import resolve

CARRIED = ("*.json", "*.model", "*.vocab")
"""What a model folder holds besides weights."""


def run_quantize(settings: Quantize) -> None:
    """The verb `quantize`.

    Raises:
        JaneoxError: no model, weights that cannot be packed, no text to measure on, or a folder that cannot be written.
    """
    folder = resolve(settings.folder or newest_model())
    model = GPTNeoX.from_pretrained(folder)
    out = settings.out or folder.with_name(f"{folder.name}-{settings.bits}bit")
    if out.resolve() == folder.resolve():
        raise JaneoxError(f"{out}: would replace the model that is read; name another folder with --out")
    texts = _sample(settings, folder) if settings.tokens else []
    with progress("quantize", unit="matrices", total=4 * model.config.num_hidden_layers + 1) as bar:
        tensors = {}
        for name, tensor in packed_tensors(model, settings.bits):
            tensors[name] = tensor
            bar.advance(int(tensor.dtype == torch.uint8), note=name)
    with new_folder(out) as new:
        for pattern in CARRIED:
            for file in folder.glob(pattern):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, new / file.name)
        write_packed(tensors, new)
    print(f"{out}: {(out / FILE).stat().st_size / 1e9:.2f} GB of weights")
    if texts:
        del tensors
        Console().print(_loss_table(settings, folder, out, model, texts))


def _sample(settings: Quantize, folder: Path) -> list[str]:
    """The first documents, as many as hold the tokens asked for; none where no text is at hand."""
    if not settings.input and not (folder.parent / "corpus").is_dir():
        print("no text at hand to measure the loss on; name some with --input FILE", file=sys.stderr)
        return []
    tokenizer = Tokenizer.load(folder)
    texts: list[str] = []
    room = settings.tokens
    parts = input_documents(settings.input, folder, BadRows())
    # A document of each file in turn, so that none fills the sample alone.
    turns = itertools.zip_longest(*(list(part) for _, part in parts))
    for document in itertools.chain.from_iterable(turns):
        if document is not None and room > 0:
            texts.append(document.text)
            room -= len(tokenizer.encode(document.text))
    return texts


def _loss_table(settings: Quantize, folder: Path, out: Path, model: GPTNeoX, texts: list[str]) -> Table:
    """Perplexity of the old weights and the new, by the same kernels."""
    tokenizer, context = Tokenizer.load(folder), model.config.max_position_embeddings

    def backends() -> Iterator[tuple[str, NativeBackend]]:
        stored = 32 if model.dtype == torch.float32 else 16
        yield f"{stored} bits", NativeBackend.from_model(model, 8, context, bits=stored)
        yield f"{settings.bits} bits", NativeBackend(model.config, read_packed(out), 8, context)

    table = Table(title=f"What {settings.bits} bits cost, over {len(texts)} documents")
    for column in ("weights", "perplexity", "bits a byte", "tokens"):
        table.add_column(column, justify="right")
    first = Score()
    try:
        for name, backend in backends():
            with progress(f"measure {name}", unit="documents", total=len(texts)) as bar:
                score = Score()
                for one in score_texts(BackendScorer(backend, tokenizer), texts):
                    score += one
                    bar.advance(1)
            first = first if first.num_tokens else score
            change = "" if score is first else f" ({score.perplexity / first.perplexity - 1:+.2%})"
            cells = (f"{score.perplexity:.3f}{change}", f"{score.bits_per_byte:.4f}", f"{score.num_tokens:,}")
            table.add_row(name, *cells)
    except NotCovered as error:
        raise JaneoxError(f"the loss cannot be measured here: {error}; the folder {out} is complete") from error
    return table
