"""Perplexity and bits per byte, over token shards or over texts.

Perplexity is exp(ΣNLL / Σtokens): sums over everything, never a mean of means. It depends on the tokenizer; bits per
UTF-8 byte of the raw text do not, and so are what to compare between models. The end-of-text token is predicted and
counted as a token, and its bits are counted, though it has no bytes.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from janeox.data.shards import Shards
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer
from janeox.train.loss import token_losses

BATCH_TOKENS = 8192  # a forward pass; more gains nothing on a CPU
TEXTS_AT_A_TIME = 512  # sorted by length together


@dataclass
class Score:
    """Sums over some text."""

    nll: float = 0.0
    """−log p in nats."""
    num_tokens: int = 0
    num_bytes: int = 0
    """UTF-8 bytes of the raw text."""
    num_chars: int = 0
    """Characters of the raw text."""

    def __add__(self, other: "Score") -> "Score":
        return Score(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nll / max(1, self.num_tokens)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        return self.nll / math.log(2) / max(1, self.num_bytes)

    @property
    def bits_per_char(self) -> float:
        return self.nll / math.log(2) / max(1, self.num_chars)


class Scorer(Protocol):
    """A causal language model with its tokenizer, as far as scoring needs it."""

    context: int
    """The most tokens of a forward pass."""
    bos_token_id: int
    eos_token_id: int

    def encode(self, text: str) -> list[int]: ...

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """−log p(target | inputs up to there), (B, T) float64 in nats, of (B, T) targets; 0 where a target is −1."""
        ...


class GPTNeoXScorer:
    """`Scorer` of our own model."""

    def __init__(self, model: GPTNeoX, tokenizer: Tokenizer):
        self.model, self.encode = model, tokenizer.encode
        config = model.config
        self.context, self.bos_token_id, self.eos_token_id = (
            config.max_position_embeddings, config.bos_token_id, config.eos_token_id
        )  # fmt: skip

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return losses(self.model, inputs, targets)


@torch.no_grad()
def losses(model: GPTNeoX, inputs: Tensor, targets: Tensor, separate: bool = False) -> Tensor:
    """See `Scorer`. Padding on the right needs no mask: no token sees it. `separate` as for `score_shards`."""
    inputs = inputs.to(model.device)
    documents = (inputs == model.config.eos_token_id).cumsum(1) if separate else None
    hidden = model.hidden(inputs, documents=documents).flatten(0, 1)
    return token_losses(hidden, model.embed_out.weight, targets.to(model.device).flatten()).double().view(targets.shape)


def score_texts(
    scorer: Scorer, texts: Iterable[str], stride: int | None = None, context: int | None = None
) -> Iterator[Score]:
    """Scores each text by itself, from the beginning of a document to its end-of-text token; yields in their order.

    A text longer than the context is read in windows that advance by `stride` tokens (half the context by default), so
    that every token is predicted once, and past the first window from at least context − stride tokens before it.
    Texts of like length share a forward pass, which changes a score by rounding at most.

    Args:
        context: tokens of a window; none: the model's whole context.

    Raises:
        JaneoxError: a stride that is not between 1 and the context, or a context that the model does not have.
    """
    window = window_of(scorer, stride, context)
    remaining = iter(texts)
    while some := list(itertools.islice(remaining, TEXTS_AT_A_TIME)):
        sequences = [torch.tensor([*scorer.encode(text), scorer.eos_token_id]) for text in some]
        for text, nll in zip(some, read(scorer, sequences, window), strict=True):
            yield _score(text, nll)


def score_packed(
    scorer: Scorer, texts: Iterable[str], stride: int | None = None, context: int | None = None
) -> list[Score]:
    """As `score_texts`, but the texts follow each other in one stream, as in training, an end-of-text token between.

    A token is predicted from the texts before its own too, so the scores depend on the order of the texts.
    """
    window = window_of(scorer, stride, context)
    texts = list(texts)
    parts = [torch.tensor([*scorer.encode(text), scorer.eos_token_id]) for text in texts]
    if not texts:
        return []
    (stream,) = read(scorer, [torch.cat(parts)], window)
    return [_score(text, nll) for text, nll in zip(texts, stream.split(list(map(len, parts))), strict=True)]


def _score(text: str, nll: Tensor) -> Score:
    return Score(nll.sum().item(), len(nll), len(text.encode(errors="replace")), len(text))


class Window(NamedTuple):
    context: int
    stride: int


def window_of(scorer: Scorer, stride: int | None, context: int | None) -> Window:
    """The window that these settings ask for; raises as `score_texts`."""
    if context is not None and not 1 <= context <= scorer.context:
        raise JaneoxError(f"context = {context}: must lie between 1 and the model's {scorer.context} tokens")
    context = context or scorer.context
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise JaneoxError(f"stride = {stride}: must lie between 1 and the context of {context} tokens")
    return Window(context, stride)


def read(scorer: Scorer, sequences: Sequence[Tensor], window: Window, start: int | None = None) -> list[Tensor]:
    """−log p of every token of each sequence (n,), float64 in nats, the first one predicted from `start` (`</s>`)."""
    first = torch.tensor([scorer.eos_token_id if start is None else start])
    pieces = [(place, *span) for place, ids in enumerate(sequences) for span in _spans(len(ids), window)]
    pieces.sort(key=lambda piece: piece[2] - piece[1])
    found = [torch.zeros(len(ids), dtype=torch.float64) for ids in sequences]
    for batch in _batches(pieces):
        inputs = torch.zeros(len(batch), max(end - begin for _, begin, end, _ in batch), dtype=torch.long)
        targets = torch.full_like(inputs, -1)
        for row, (place, begin, end, scored) in enumerate(batch):
            ids = sequences[place]
            inputs[row, : end - begin] = torch.cat(
                (first if begin == 0 else ids[begin - 1 : begin], ids[begin : end - 1])
            )
            targets[row, scored - begin : end - begin] = ids[scored:end]
        nll = scorer.losses(inputs, targets).cpu()
        for row, (place, begin, end, scored) in enumerate(batch):
            found[place][scored:end] = nll[row, scored - begin : end - begin]
    return found


def _spans(length: int, window: Window) -> Iterator[tuple[int, int, int]]:
    """(begin, end, scored) of each window: it reads the tokens begin … end, and scores those from `scored` on."""
    scored = 0
    while scored < length:
        end = min(length, window.context if scored == 0 else scored + window.stride)
        yield max(0, end - window.context), end, scored
        scored = end


def _batches(pieces: list[tuple[int, int, int, int]]) -> Iterator[list[tuple[int, int, int, int]]]:
    """Windows sorted by length, in groups that fill BATCH_TOKENS once padded."""
    batch: list[tuple[int, int, int, int]] = []
    for piece in pieces:
        if batch and (len(batch) + 1) * (piece[2] - piece[1]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def score_shards(
    model: GPTNeoX, shards: Shards, sequence_length: int, rows: int, split: str = "valid", separate: bool = False
) -> dict[str, Score]:
    """Scores every token of a split once, by source, as training sees it: windows of the packed stream.

    Documents follow each other within a window, and each window starts with no context but the token before it.

    Args:
        rows: windows a forward pass.
        separate: whether a document sees nothing of those before it.
    """
    scores: dict[str, Score] = {}
    for source, files in shards.by_source(split):
        score = Score()
        for file in files:
            tokens = torch.from_numpy(shards.tokens(file).astype(np.int64))
            inputs = torch.cat((torch.tensor([shards.eos_token_id]), tokens[:-1]))
            whole = len(tokens) // sequence_length * sequence_length
            nll = 0.0
            for start in range(0, whole, rows * sequence_length):
                end = min(whole, start + rows * sequence_length)
                part = torch.arange(start, end).view(-1, sequence_length)  # (rows, T) places in the stream
                nll += losses(model, inputs[part], tokens[part], separate).sum().item()
            if whole < len(tokens):
                nll += losses(model, inputs[None, whole:], tokens[None, whole:], separate).sum().item()
            score += Score(nll, file.num_tokens, file.num_bytes, file.num_chars)
        scores[source] = score
    return scores


def interval(
    scores: Sequence[Score], figure: Callable[[Score], float], seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """95 % bootstrap interval (percentiles of 1,000 resamplings of the documents) of a figure of their sum.

    Args:
        scores: one a document; of a single one there is no interval.
    """
    if len(scores) < 2:
        return None, None
    rows = np.array([astuple(score) for score in scores])  # (documents, fields)
    random = np.random.default_rng(seed)
    figures = []
    for _ in range(1000):
        counts = np.bincount(random.integers(0, len(rows), len(rows)), minlength=len(rows))
        figures.append(figure(Score(*(counts @ rows))))
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(low), float(high)


def unigram_entropy(shards: Shards, split: str = "valid") -> float:
    """Entropy of a split's own token frequencies, nats a token: the best of any model that ignores the context."""
    counts = np.zeros(shards.vocab_size, np.int64)
    for file in shards.of(split):
        counts += np.bincount(shards.tokens(file), minlength=shards.vocab_size)
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())
