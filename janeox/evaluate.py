"""Perplexity and bits per byte, over token shards or over texts.

Perplexity is exp(ΣNLL / Σtokens): sums over everything, never a mean of means. It depends on the tokenizer; bits per
UTF-8 byte of the raw text do not, and so are what to compare between models. The end-of-text token is predicted and
counted as a token, and its bits are counted, though it has no bytes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from janeox.loss import next_token_loss
from janeox.model import GPTNeoX
from janeox.shards import Shards
from janeox.tokenizer import Tokenizer


@dataclass
class Score:
    """Sums over some text."""

    nll: float = 0.0
    """−log p in nats."""
    num_tokens: int = 0
    num_bytes: int = 0
    """UTF-8 bytes of the raw text."""

    def __add__(self, other: "Score") -> "Score":
        return Score(self.nll + other.nll, self.num_tokens + other.num_tokens, self.num_bytes + other.num_bytes)

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


@torch.no_grad()
def score_shards(
    model: GPTNeoX, shards: Shards, sequence_length: int, rows: int, split: str = "valid"
) -> dict[str, Score]:
    """Scores every token of a split once, by source, as training sees it: windows of the packed stream.

    Documents follow each other within a window, and each window starts with no context but the token before it.

    Args:
        rows: windows a forward pass.
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
                part = slice(start, min(whole, start + rows * sequence_length))
                nll += _nll(model, inputs[part].view(-1, sequence_length), tokens[part].view(-1, sequence_length))
            if whole < len(tokens):
                nll += _nll(model, inputs[None, whole:], tokens[None, whole:])
            score += Score(nll, file.num_tokens, file.num_bytes)
        scores[source] = score
    return scores


def _nll(model: GPTNeoX, inputs: Tensor, targets: Tensor) -> float:
    """Sum over (B, T) targets that are not −1."""
    hidden = model.hidden(inputs.to(model.device))
    return next_token_loss(hidden.flatten(0, 1), model.embed_out.weight, targets.flatten().to(model.device)).item()


@torch.no_grad()
def score_text(model: GPTNeoX, tokenizer: Tokenizer, text: str, stride: int | None = None) -> Score:
    """Scores one text by itself, from the beginning of a document to its end-of-text token.

    A text longer than the context is read in windows that advance by `stride` tokens (half the context by default), so
    that every token is predicted once, and past the first window from at least context − stride tokens before it.
    """
    eos = tokenizer.eos_token_id
    targets = torch.tensor([*tokenizer.encode(text), eos])
    inputs = torch.cat((torch.tensor([eos]), targets[:-1]))
    context = model.config.max_position_embeddings
    stride = context // 2 if stride is None else stride
    nll, scored = 0.0, 0
    while scored < len(targets):
        end = min(len(targets), context if scored == 0 else scored + stride)
        start = max(0, end - context)
        wanted = targets[start:end].clone()
        wanted[: scored - start] = -1
        nll += _nll(model, inputs[None, start:end], wanted[None])
        scored = end
    return Score(nll, len(targets), len(text.encode(errors="replace")))


def unigram_entropy(shards: Shards, split: str = "valid") -> float:
    """Entropy of a split's own token frequencies, nats a token: the best of any model that ignores the context."""
    counts = np.zeros(shards.vocab_size, np.int64)
    for file in shards.of(split):
        counts += np.bincount(shards.tokens(file), minlength=shards.vocab_size)
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum())
