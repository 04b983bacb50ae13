"""Perplexity and bits per byte, over token shards or over texts.

Perplexity is exp(ΣNLL / Σtokens): sums over everything, never a mean of means. It depends on the tokenizer; bits per
UTF-8 byte of the raw text do not, and so are what to compare between models. The end-of-text token is predicted and
counted as a token, and its bits are counted, though it has no bytes.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

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
    eos_token_id: int

    def encode(self, text: str) -> list[int]: ...

    def row_losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) sums over (B, T) targets that are not −1 of −log p(target | inputs up to there), float64, in nats."""
        ...


class GPTNeoXScorer:
    """`Scorer` of our own model."""

    def __init__(self, model: GPTNeoX, tokenizer: Tokenizer):
        self.model, self.encode = model, tokenizer.encode
        self.context, self.eos_token_id = model.config.max_position_embeddings, model.config.eos_token_id

    def row_losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return row_losses(self.model, inputs, targets)


@torch.no_grad()
def row_losses(model: GPTNeoX, inputs: Tensor, targets: Tensor, separate: bool = False) -> Tensor:
    """See `Scorer`. Padding on the right needs no mask: no token sees it. `separate` as for `score_shards`."""
    inputs = inputs.to(model.device)
    documents = (inputs == model.config.eos_token_id).cumsum(1) if separate else None
    hidden = model.hidden(inputs, documents=documents).flatten(0, 1)
    losses = token_losses(hidden, model.embed_out.weight, targets.to(model.device).flatten())
    return losses.view(targets.shape).double().sum(1)


def score_texts(scorer: Scorer, texts: Iterable[str], stride: int | None = None) -> Iterator[Score]:
    """Scores each text by itself, from the beginning of a document to its end-of-text token; yields in their order.

    A text longer than the context is read in windows that advance by `stride` tokens (half the context by default), so
    that every token is predicted once, and past the first window from at least context − stride tokens before it.
    Texts of like length share a forward pass, which changes a score by rounding at most.

    Raises:
        JaneoxError: a stride that is not between 1 and the context.
    """
    stride = max(1, scorer.context // 2) if stride is None else stride
    if not 1 <= stride <= scorer.context:
        raise JaneoxError(f"stride = {stride}: must lie between 1 and the model's context of {scorer.context} tokens")
    remaining = iter(texts)
    while some := list(itertools.islice(remaining, TEXTS_AT_A_TIME)):
        windows = [(place, *w) for place, text in enumerate(some) for w in _windows(scorer, text, stride)]
        windows.sort(key=lambda window: len(window[1]))
        nll, num_tokens = [0.0] * len(some), [0] * len(some)
        for batch in _batches(windows):
            inputs = torch.zeros(len(batch), len(batch[-1][1]), dtype=torch.long)
            targets = torch.full_like(inputs, -1)
            for row, (_, ids, wanted) in enumerate(batch):
                inputs[row, : len(ids)], targets[row, : len(ids)] = ids, wanted
            for (place, _, wanted), loss in zip(batch, scorer.row_losses(inputs, targets).tolist(), strict=True):
                nll[place] += loss
                num_tokens[place] += int((wanted >= 0).sum())
        for place, text in enumerate(some):
            yield Score(nll[place], num_tokens[place], len(text.encode(errors="replace")), len(text))


def _windows(scorer: Scorer, text: str, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, targets) of each window; targets that an earlier window has are −1."""
    targets = torch.tensor([*scorer.encode(text), scorer.eos_token_id])
    inputs = torch.cat((targets[-1:], targets[:-1]))
    scored = 0
    while scored < len(targets):
        end = min(len(targets), scorer.context if scored == 0 else scored + stride)
        start = max(0, end - scorer.context)
        wanted = targets[start:end].clone()
        wanted[: scored - start] = -1
        yield inputs[start:end], wanted
        scored = end


def _batches(windows: list[tuple[int, Tensor, Tensor]]) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
    """Windows sorted by length, in groups that fill BATCH_TOKENS once padded."""
    batch: list[tuple[int, Tensor, Tensor]] = []
    for window in windows:
        if batch and (len(batch) + 1) * len(window[1]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
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
                nll += row_losses(model, inputs[part], tokens[part], separate).sum().item()
            if whole < len(tokens):
                nll += row_losses(model, inputs[None, whole:], tokens[None, whole:], separate).sum().item()
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
