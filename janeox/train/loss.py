"""Next-token loss without a table of all logits: the head is applied to a slice of the tokens at a time.

At 32,000 pieces the logits and their gradient are by far the largest tensors of a training step. Here the gradient of a
slice is computed while its logits are at hand, so they never exist for all tokens at once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Bytes of float32 logits alive at a time: on a GPU enough to fill it, on a CPU so few that they stay in its cache.
CHUNK_BYTES = {"cuda": 1 << 28, "cpu": 1 << 23}


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
        head = weight.to(hidden.dtype)
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part in _slices(targets, weight):
            logits = hidden[part] @ head.T  # (rows, V)
            log_p = F.log_softmax(logits, dim=1, dtype=torch.float32)
            wanted = targets[part, None].clamp(min=0)
            losses[part] = -log_p.gather(1, wanted)[:, 0]
            grad = log_p.exp_()  # softmax
            if z_loss:
                log_sum = logits.float().logsumexp(dim=1, keepdim=True)
                losses[part] += z_loss * log_sum[:, 0] ** 2
                grad *= 1 + 2 * z_loss * log_sum
            grad.scatter_add_(1, wanted, grad.new_full(wanted.shape, -1.0))
            grad[targets[part] < 0] = 0.0
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ head
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[part]
        losses.masked_fill_(targets < 0, 0.0)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_hidden * scale, None if grad_weight is None else grad_weight * scale, None, None


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Sum over tokens of −log p(target), in nats, as a float32 scalar to be differentiated.

    Args:
        hidden: (N, C) what the head reads.
        weight: (V, C) the head, `embed_out.weight`.
        targets: (N,) ids; −1 where nothing is to be predicted.
        z_loss: adds this times (log Σ exp logits)² of each token, which keeps logits near 0 (arXiv 2204.02311).
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, z_loss)


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """−log p of each target by itself, (N,) float32; 0 where the target is −1. Arguments as of `next_token_loss`."""
    losses = torch.zeros(len(targets), dtype=torch.float32, device=hidden.device)
    places = (targets >= 0).nonzero()[:, 0]
    for part in _slices(places, weight):
        logits = (hidden[places[part]] @ weight.to(hidden.dtype).T).float()  # (rows, V)
        losses[places[part]] = F.cross_entropy(logits, targets[places[part]], reduction="none")
    return losses


def _slices(tokens: Tensor, weight: Tensor) -> list[slice]:
    """Of `tokens` (N,), for a head (V, C)."""
    rows = max(1, CHUNK_BYTES.get(weight.device.type, 1 << 28) // (4 * len(weight)))
    return [slice(start, start + rows) for start in range(0, len(tokens), rows)]
