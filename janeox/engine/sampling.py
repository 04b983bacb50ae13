"""From logits to the next token: transformers' formulas in transformers' order, then one draw a row.

The order: repetition penalty, minimum length, temperature, top-k, top-p.
"""

import torch
from torch import Tensor

from janeox.config import SamplingConfig


def next_token_logits(
    logits: Tensor, ids: Tensor, mask: Tensor | None, num_new: Tensor, sampling: SamplingConfig, eos_token_id: int
) -> Tensor:
    """What the next token is drawn from; −inf where it cannot be.

    Args:
        logits: (B, V) of the model.
        ids: (B, S) all tokens so far, prompt included.
        mask: (B, S) False where `ids` is padding; None if nowhere.
        num_new: (B,) tokens generated so far.

    Returns:
        (B, V) float32.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1.0:
        seen = torch.zeros_like(logits)
        present = torch.ones_like(ids, dtype=seen.dtype) if mask is None else mask.to(seen.dtype)
        seen.scatter_reduce_(1, ids, present, reduce="amax")
        penalised = torch.where(logits < 0, logits * sampling.repetition_penalty, logits / sampling.repetition_penalty)
        logits = torch.where(seen > 0, penalised, logits)
    if sampling.min_new_tokens:
        logits = logits.clone()
        logits[:, eos_token_id].masked_fill_(num_new < sampling.min_new_tokens, -torch.inf)
    if sampling.temperature == 0:
        return logits
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1.0:
        ascending, order = logits.sort(dim=1)
        drop = ascending.softmax(1).cumsum(1) <= 1 - sampling.top_p
        drop[:, -1] = False
        logits = logits.masked_fill(drop.scatter(1, order, drop), -torch.inf)
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Token ids (B,) from logits (B, V) by inverting the distribution at `uniform` (B,) in [0, 1), float64."""
    if logits.device.type == "mps":  # Apple's GPU has no float64
        return draw(logits.cpu(), uniform).to(logits.device)
    cumulative = logits.double().softmax(1).cumsum(1)
    point = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    # The first place above the point: a token of probability 0 adds nothing to the sum, so it is never that place.
    return (cumulative > point).byte().argmax(1)
