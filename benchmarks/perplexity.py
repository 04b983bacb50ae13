"""Perplexity of real text by janeox, and by a plain loop over transformers' own model: do they agree?

    python -m benchmarks.perplexity MODEL FILE …

Every way of scoring is computed twice, the second time window by window without any batch, for 8 and 4 bits with the
rounded model of benchmarks/rounded.py. Ends with an error where two differ by more than 1e-4 of the perplexity.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import janeox
from benchmarks.machine import header
from benchmarks.rounded import rounded_model
from janeox.corpus.read import BadRows, read_documents
from janeox.evaluate.backend import BackendScorer
from janeox.evaluate.score import Score, score_packed, score_texts

ALLOWED = 1e-4
Scored = Callable[[Any, list[str], int, int], Score]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=12, help="of each file, the first ones")
    parser.add_argument("--chars", type=int, default=6000, help="of a document")
    options = parser.parse_args()
    from transformers import GPTNeoXForCausalLM

    print(header())
    texts = [text for file in options.files for text in documents(file, options.documents, options.chars)]
    lm = janeox.load(options.model, device="cpu", dtype="float32")
    theirs = GPTNeoXForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    context, end = lm.model.config.max_position_embeddings, lm.model.config.eos_token_id
    apart = [[*lm.tokenizer.encode(text), end] for text in texts]
    packed = [[id for ids in apart for id in ids]]
    print(f"{len(texts)} documents, {sum(map(len, texts)):,} characters; context {context}, float32")
    print(f"{'way':<46}{'tokens':>9}{'janeox':>13}{'transformers':>14}{'relative':>10}", flush=True)
    scorer = lm.scorer()
    beginnings = [text[: context // 3] for text in texts]  # at most three tokens a character: they fit the context
    half, short = context // 2, context // 4
    agree = [
        compare(f"whole: {context // 3} characters of each", scorer, beginnings, theirs, context, half),
        compare(f"windows, stride {half}", scorer, texts, theirs, context, half),
        compare(f"windows, stride {context}", scorer, texts, theirs, context, context),
        compare(f"windows of {short}, stride {short // 2}", scorer, texts, theirs, short, short // 2),
        compare("each document alone", scorer, texts, theirs, context, half, one_by_one),
        compare("the other order", scorer, texts[::-1], theirs, context, half),
        row("packed", sum(score_packed(scorer, texts), Score()), independent(theirs, packed, end, context, half)),
    ]
    for bits in (8, 4):
        backend = janeox.load(options.model, device="cpu", bits=bits).engine(8).backend
        quantised = BackendScorer(backend, lm.tokenizer)
        agree.append(compare(f"{bits} bits", quantised, texts, rounded_model(theirs, bits), context, half))
    if not all(agree):
        raise SystemExit(f"differs by more than {ALLOWED:g}")


def documents(file: Path, number: int, chars: int) -> list[str]:
    found = []
    for document in read_documents(file, file.name, BadRows()):
        if document.text:
            found.append(document.text[:chars])
        if len(found) == number:
            break
    return found


def together(scorer: Any, texts: list[str], stride: int, context: int) -> Score:
    return sum(score_texts(scorer, texts, stride, context), Score())


def one_by_one(scorer: Any, texts: list[str], stride: int, context: int) -> Score:
    return sum((next(score_texts(scorer, [text], stride, context)) for text in texts), Score())


def compare(
    way: str,
    scorer: Any,
    texts: list[str],
    model: Any,
    context: int,
    stride: int,
    score: Callable[..., Score] = together,
) -> bool:
    sequences = [[*scorer.encode(text), scorer.eos_token_id] for text in texts]
    return row(
        way, score(scorer, texts, stride, context), independent(model, sequences, scorer.eos_token_id, context, stride)
    )


def row(way: str, ours: Score, theirs: tuple[float, int]) -> bool:
    """Prints one line; whether both agree."""
    nll, tokens = theirs
    expected = math.exp(nll / tokens)
    relative = ours.perplexity / expected - 1
    print(f"{way:<46}{tokens:>9,}{ours.perplexity:>13.5f}{expected:>14.5f}{relative:>+10.1e}", flush=True)
    return tokens == ours.num_tokens and abs(relative) <= ALLOWED


@torch.no_grad()
def independent(model: Any, sequences: list[list[int]], end: int, context: int, stride: int) -> tuple[float, int]:
    """(Σ −log p, tokens): each sequence after `</s>`, in windows of `context` tokens that advance by `stride`."""
    nll, tokens = 0.0, 0
    for sequence in sequences:
        ids, done = [end, *sequence], 0
        while done < len(sequence):
            until = min(len(sequence), done + stride if done else context)
            first = max(0, until - context)
            logits = model(torch.tensor([ids[first:until]])).logits[0, done - first :].double()
            nll += F.cross_entropy(logits, torch.tensor(ids[done + 1 : until + 1]), reduction="sum").item()
            done = until
        tokens += len(sequence)
    return nll, tokens


if __name__ == "__main__":
    main()
