"""Next-token loss without a table of all logits: the head is applied to a slice of the tokens at a time.

At 32,000 pieces the logits and their gradient are by far the largest tensors of a training step. Here the gradient of a
slice is computed while its logits are at hand, so they never exist for all tokens at once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from janeox.native.training import cross_entropy
from janeox.products import has_native, product

# Bytes of the logits of a block of tokens, which are multiplied at once: on a CPU more of them than its cache holds.
BLOCK_BYTES = {"cuda": 1 << 27, "mps": 1 << 27, "cpu": 1 << 27}
# Bytes in float32 of the slices in which PyTorch's operations go through a block.
SLICE_BYTES = {"cuda": 1 << 28, "mps": 1 << 28, "cpu": 1 << 22}


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> Tensor:
        head = _head(hidden, weight)
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = None
        for block in _blocks(hidden, weight):
            logits = product(hidden[block], head.T)  # (rows, V), which become their own gradient
            _to_gradient(logits, targets[block], z_loss, losses[block])
            grad_hidden[block] = product(logits, head)
            if ctx.needs_input_grad[1]:
                of_block = product(logits.T, hidden[block], torch.float32)
                grad_weight = of_block if grad_weight is None else grad_weight.add_(of_block)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        if scale.device.type == "cpu" and scale == 1:  # as the loop calls it; looking costs nothing there
            return grad_hidden, grad_weight, None, None
        return grad_hidden * scale, None if grad_weight is None else grad_weight * scale, None, None


def _to_gradient(logits: Tensor, targets: Tensor, z_loss: float, losses: Tensor) -> None:
    """Puts the gradient in the place of (rows, V) logits, and the loss of each row into `losses`, (rows,) float32."""
    covered = logits.device.type == "cpu" and logits.shape[1] % 32 == 0
    covered = covered and logits.dtype in (torch.float32, torch.bfloat16)
    if covered and cross_entropy(logits, targets, z_loss, losses):
        return
    for part in _slices(len(logits), 4 * logits.shape[1], SLICE_BYTES[logits.device.type]):
        losses[part] = _slice_to_gradient(logits[part], targets[part], z_loss)


def _slice_to_gradient(logits: Tensor, targets: Tensor, z_loss: float) -> Tensor:
    """The same in PyTorch's operations; returns the losses."""
    wanted = targets[:, None].clamp(min=0)
    chosen, highest = logits.gather(1, wanted).float(), logits.amax(1, keepdim=True).float()
    p = torch.softmax(logits, dim=1, dtype=torch.float32)
    log_sum = highest - p.amax(1, keepdim=True).log()  # the highest logit has probability e^(it − log sum)
    if z_loss:
        p *= 1 + 2 * z_loss * log_sum
    p.scatter_add_(1, wanted, p.new_full(wanted.shape, -1.0))
    p *= targets[:, None] >= 0
    logits.copy_(p)
    return torch.where(targets >= 0, (log_sum - chosen + z_loss * log_sum**2)[:, 0], 0.0)


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Sum over tokens of −log p(target), in nats, as a float32 scalar to be differentiated.

    Args:
        hidden: (N, C) what the head reads.
        weight: (V, C) the head, `embed_out.weight`.
        targets: (N,) ids; −1 where nothing is to be predicted.
        z_loss: adds this times (log Σ exp logits)² of each token, which keeps logits near 0 (arXiv 2204.02311).
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, z_loss)


class _ChosenLogps(torch.autograd.Function):
    """Keeps the softmax of each token, which is all that its gradient needs beside what comes in."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        head = _head(hidden, weight)
        logps, entropies = (torch.empty(len(targets), device=hidden.device) for _ in range(2))
        learns = any(ctx.needs_input_grad)
        softmax = torch.empty(len(targets) if learns else 0, len(head), device=hidden.device)
        for block in _blocks(hidden, weight):
            logits = product(hidden[block], head.T)  # (rows, V)
            for part in _slices(len(logits), 4 * len(head), SLICE_BYTES[weight.device.type]):
                log_p = F.log_softmax(logits[part], dim=1, dtype=torch.float32)
                p = torch.exp(log_p, out=softmax[block][part]) if learns else log_p.exp()
                logps[block][part] = log_p.gather(1, targets[block][part, None])[:, 0]
                entropies[block][part] = -torch.linalg.vecdot(p, log_p)
        ctx.save_for_backward(hidden, weight, targets, softmax)
        ctx.mark_non_differentiable(entropies)
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None]:
        hidden, weight, targets, softmax = ctx.saved_tensors
        head, scale = _head(hidden, weight), grad_outputs[0][:, None]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for block in _blocks(hidden, weight):
            to_logits = torch.empty(softmax[block].shape, dtype=hidden.dtype, device=hidden.device)
            for part in _slices(len(to_logits), 4 * len(head), SLICE_BYTES[weight.device.type]):
                p = softmax[block][part] * -scale[block][part]
                to_logits[part] = p.scatter_add_(1, targets[block][part, None], scale[block][part])
            grad_hidden[block] = product(to_logits, head)
            if grad_weight is not None:
                grad_weight += product(to_logits.T, hidden[block], torch.float32)
        return grad_hidden, grad_weight, None


def chosen_logps(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log p of each target, to be differentiated, and the entropy of each choice, both (N,) float32.

    Args:
        hidden: (N, C) what the head reads.
        weight: (V, C) the head, `embed_out.weight`.
        targets: (N,) ids.
    """
    return _ChosenLogps.apply(hidden, weight, targets)


@torch.no_grad()
def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """−log p of each target by itself, (N,) float32; 0 where the target is −1. Arguments as of `next_token_loss`."""
    losses = torch.zeros(len(targets), dtype=torch.float32, device=hidden.device)
    places, head = (targets >= 0).nonzero()[:, 0], _head(hidden, weight)
    for part in _slices(len(places), 4 * len(weight), SLICE_BYTES[weight.device.type]):
        logits = product(hidden[places[part]], head.T).float()  # (rows, V)
        losses[places[part]] = F.cross_entropy(logits, targets[places[part]], reduction="none")
    return losses


def _head(hidden: Tensor, weight: Tensor) -> Tensor:
    """The weights as they are multiplied; a native product takes them as they are stored."""
    return weight if has_native(hidden, weight) else weight.to(hidden.dtype)


def _blocks(hidden: Tensor, weight: Tensor) -> list[slice]:
    """Of the tokens, so many at a time that their logits have BLOCK_BYTES."""
    return _slices(len(hidden), hidden.element_size() * len(weight), BLOCK_BYTES[hidden.device.type])


def _slices(rows: int, row_bytes: int, most_bytes: int) -> list[slice]:
    step = max(1, most_bytes // row_bytes)
    return [slice(start, start + step) for start in range(0, rows, step)]
