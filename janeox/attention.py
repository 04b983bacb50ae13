"""Which token sees which, and where each stands: masks, positions, and the rotation of queries and keys.

Shapes in comments are those of model.py: B batch, T tokens, H heads, D head size, R rotated part of D.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask


class RotatedHeads(torch.autograd.Function):
    """qkv (B, T, H, 3, D) → rotated q, rotated k, and v, each (B, H, T, D).

    The gradient of a rotation is the rotation back; said here, it needs none of the copies that autograd would make.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        B, H, T, D = grads[0].shape
        grad = grads[0].new_empty(B, T, H, 3, D)
        to_q, to_k, to_v = grad.permute(3, 0, 2, 1, 4)
        rotate(grads[0], cos, -sin, to_q)
        rotate(grads[1], cos, -sin, to_k)
        to_v.copy_(grads[2])
        return grad, None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) of the first R of each head's D dimensions; x is (B, H, T, D)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    R = cos.shape[-1]
    cos, sin = cos[..., : R // 2], sin[..., : R // 2]
    first, second = x[..., : R // 2], x[..., R // 2 : R]
    out[..., : R // 2] = torch.addcmul(first * cos, second, sin, value=-1)
    out[..., R // 2 : R] = torch.addcmul(second * cos, first, sin)
    out[..., R:] = x[..., R:]
    return out


def attention_mask(mask: Tensor) -> Tensor:
    """Which tokens each token may see, (B, 1, T, T) bool, where (B, T) `mask` is False for padding.

    Padded queries see themselves, because a softmax over nothing is not a number.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    return (places <= places[:, None]) & mask[:, None, None] | (places == places[:, None])


def document_positions(documents: Tensor) -> Tensor:
    """Place of each token in its document, (B, T), for document numbers (B, T)."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(begins, places, 0).cummax(1).values


def document_mask(documents: Tensor) -> Tensor | BlockMask:
    """Causal attention within each document: (B, 1, T, T) bool, or on a GPU blocks of which empty ones cost nothing."""
    B, T = documents.shape
    if documents.is_cuda:

        def sees(b: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (documents[b, query] == documents[b, key])

        return create_block_mask(sees, B, None, T, T, device=documents.device)
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]
