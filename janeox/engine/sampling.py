"""From logits to the next token: transformers' formulas in transformers' order, then one draw a row.

The order: bias, repetition penalty, n-grams, minimum length, temperature, top-k, top-p, min-p, typical-p.
"""

import torch
from torch import Tensor

from janeox.config import SamplingConfig


def needs_history(sampling: SamplingConfig) -> bool:
    """Whether the next token hangs on which tokens came before, beyond the model's logits."""
    return sampling.repetition_penalty != 1.0 or sampling.no_repeat_ngram_size > 0


def next_token_logits(
    logits: Tensor, ids: Tensor, lengths: Tensor, num_new: Tensor, sampling: SamplingConfig, eos_token_id: int
) -> Tensor:
    """What the next token is drawn from; −inf where it cannot be.

    Args:
        logits: (B, V) float32 of the model.
        ids: (B, S) all tokens so far, prompt included, padded on the right; read only if `needs_history`.
        lengths: (B,) how many of them are real.
        num_new: (B,) tokens generated so far.

    Returns:
        (B, V) float32.
    """
    if sampling.logit_bias:
        bias = torch.zeros(logits.shape[1], device=logits.device)
        for id, value in sampling.logit_bias.items():
            bias[id] = value
        logits = logits + bias
    if sampling.repetition_penalty != 1.0:
        seen = _marked(logits, ids, torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])
        penalised = torch.where(logits < 0, logits * sampling.repetition_penalty, logits / sampling.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if 0 < sampling.no_repeat_ngram_size <= ids.shape[1]:
        logits = logits.masked_fill(_repeats(logits, ids, lengths, sampling.no_repeat_ngram_size), -torch.inf)
    if sampling.min_new_tokens:
        logits = logits.clone()
        logits[:, eos_token_id].masked_fill_(num_new < sampling.min_new_tokens, -torch.inf)
    return logits if sampling.temperature == 0 else _filtered(logits / sampling.temperature, sampling)


def _filtered(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Without the tokens that top-k, top-p, min-p and typical-p leave out."""
    if 0 < sampling.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1.0:
        ascending, order = logits.sort(dim=1)
        drop = ascending.softmax(1).cumsum(1) <= 1 - sampling.top_p
        drop[:, -1] = False
        logits = logits.masked_fill(drop.scatter(1, order, drop), -torch.inf)
    if sampling.min_p > 0:
        p = logits.softmax(1)
        logits = logits.masked_fill(p < sampling.min_p * p.amax(1, keepdim=True), -torch.inf)
    if sampling.typical_p < 1.0:
        logp = logits.log_softmax(1)
        entropy = -(logp * logp.exp()).nansum(1, keepdim=True)
        surprise, order = (-logp - entropy).abs().sort(dim=1)
        mass = logits.gather(1, order).softmax(1).cumsum(1)
        last = (mass < sampling.typical_p).sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)
        drop = surprise > surprise.gather(1, last)
        drop[:, 0] = False
        logits = logits.masked_fill(drop.scatter(1, order, drop), -torch.inf)
    return logits


def _marked(logits: Tensor, ids: Tensor, real: Tensor) -> Tensor:
    """(B, V) bool: the ids at (B, S) places that are `real`."""
    marks = torch.zeros(logits.shape, device=logits.device)
    return marks.scatter_reduce_(1, ids, real.float(), reduce="amax") > 0


def _repeats(logits: Tensor, ids: Tensor, lengths: Tensor, n: int) -> Tensor:
    """(B, V) bool: the ids that would complete a run of `n` tokens that is there already."""
    runs = ids.unfold(1, n, 1)  # (B, S - n + 1, n)
    ends = lengths[:, None] - torch.arange(n - 1, 0, -1, device=ids.device)  # (B, n - 1) the last n - 1 places
    same = (runs[..., :-1] == ids.gather(1, ends.clamp(min=0))[:, None]).all(2)
    inside = torch.arange(n, ids.shape[1] + 1, device=ids.device) <= lengths[:, None]
    return _marked(logits, runs[..., -1], same & inside)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Token ids (B,) from logits (B, V) by inverting the distribution at `uniform` (B,) in [0, 1), float64."""
    if logits.device.type == "mps":  # Apple's GPU has no float64
        return draw(logits.cpu(), uniform).to(logits.device)
    cumulative = logits.double().softmax(1).cumsum(1)
    point = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    # The first place above the point: a token of probability 0 adds nothing to the sum, so it is never that place.
    return torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
