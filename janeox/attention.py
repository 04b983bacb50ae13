"""Which token sees which, and where each stands: masks, positions, and the rotation of queries and keys.

Shapes in comments are those of model.py: B batch, T tokens, H heads, D head size, R rotated part of D.
"""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from janeox.native.training import attend, pay


def native_attention(qkv: Tensor, rotary: tuple[Tensor, Tensor], documents: "Documents | None") -> Tensor | None:
    """Rotation and causal attention at once, of qkv (B, T, H, 3, D) → (B, T, H, D); none where PyTorch has to do it."""
    plain = type(qkv) is Tensor and qkv.device.type == "cpu" and not torch.compiler.is_compiling()
    covered = plain and qkv.dtype in (torch.float32, torch.bfloat16) and qkv.shape[-1] % 2 == 0 and qkv.shape[1] > 1
    if not covered or not pay(qkv.dtype == torch.bfloat16):
        return None
    cos, sin = (x[:, 0, :, : x.shape[-1] // 2].float().contiguous() for x in rotary)  # (B or 1, T, R/2)
    begins = None if documents is None else documents.begins.int()
    return _NativeAttention.apply(qkv.contiguous(), cos, sin, begins)


class _NativeAttention(torch.autograd.Function):
    """Keeps qkv only; scores are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, begins: Tensor | None) -> Tensor:
        ctx.save_for_backward(qkv, cos, sin, begins)
        B, T, H, _, D = qkv.shape
        out = qkv.new_empty(B, T, H, D)
        attend(qkv, cos, sin, begins, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        qkv, cos, sin, begins = ctx.saved_tensors
        to_qkv = torch.empty_like(qkv)
        attend(qkv, cos, sin, begins, to_qkv, grads[0].contiguous())
        return to_qkv, None, None, None


class RotatedHeads(torch.autograd.Function):
    """qkv (B, T, H, 3, D) → rotated q, rotated k, and v, each (B, H, T, D), contiguous, so that qkv need not be kept.

    The gradient of a rotation is the rotation back; said here, it needs none of the copies that autograd would make.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        return rotate(q, cos, sin), rotate(k, cos, sin), v.contiguous()

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
    if x.shape[-1] > R:
        out[..., R:] = x[..., R:]
    return out


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of each token to itself and those before it; all (B, H, T, D)."""
    if _in_blocks(q):
        return _TrainedInBlocks.apply(q, k, v, None)
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)


class Documents:
    """Rows of several documents, of which each token sees its own only, and of that what stands before it.

    Args:
        documents: (B, T) number of the document of each token, the same over neighbouring tokens.
    """

    def __init__(self, documents: Tensor):
        places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
        news = torch.ones_like(documents, dtype=torch.bool)
        news[:, 1:] = documents[:, 1:] != documents[:, :-1]
        self.begins = torch.where(news, places, 0).cummax(1).values
        """(B, T) where the document of each token begins."""
        self.positions = places - self.begins
        """(B, T) place of each token in its document."""

    @cached_property
    def mask(self) -> Tensor:
        """(B, 1, T, T) bool: which tokens each token sees."""
        return (self.begins[:, :, None] == self.begins[:, None, :]).tril()[:, None]

    def blocks(self) -> BlockMask:
        """The same as blocks, of which empty ones cost nothing."""
        begins = self.begins

        def sees(b: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (begins[b, query] == begins[b, key])

        B, T = begins.shape
        return create_block_mask(sees, B, None, T, T, device=begins.device)


def document_attention(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Tensor:
    """Causal attention within each document; all (B, H, T, D)."""
    if _in_blocks(q):
        return _TrainedInBlocks.apply(q, k, v, documents.begins)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=documents.mask)


def _in_blocks(q: Tensor) -> bool:
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad


class _TrainedInBlocks(torch.autograd.Function):
    """Causal attention as plain matrix products over blocks of queries, for training in bfloat16 on a CPU.

    There PyTorch's own kernel is far slower than its matrix products. Probabilities are computed again for the
    gradient, so that nothing of size T² outlives its block. Scores are rounded to bfloat16, as they are wherever
    attention is not fused.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, begins: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.heads, ctx.begins = q.shape[:2], begins
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B·H, T, D)
        out = torch.empty_like(q)
        for some, of, seen, mask in _blocks(q, begins):
            out[some, of] = _probabilities(q[some, of], k[some, seen], mask) @ v[some, seen]
        return out.unflatten(0, ctx.heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, grad = (x.flatten(0, 1) for x in (*ctx.saved_tensors, *grads))
        to_q, to_k, to_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        scale = 1 / math.sqrt(q.shape[-1])
        for some, of, seen, mask in _blocks(q, ctx.begins):
            queries, keys, of_block = q[some, of], k[some, seen], grad[some, of]
            p = _probabilities(queries, keys, mask)
            to_v[some, seen].baddbmm_(p.mT, of_block)
            to_scores = torch._softmax_backward_data(of_block @ v[some, seen].mT, p, -1, p.dtype)
            to_q[some, of].baddbmm_(to_scores, keys, beta=0, alpha=scale)
            to_k[some, seen].baddbmm_(to_scores.mT, queries, alpha=scale)
        return to_q.unflatten(0, ctx.heads), to_k.unflatten(0, ctx.heads), to_v.unflatten(0, ctx.heads), None


QUERIES = 128  # of a block: enough for a matrix product to be fast
SCORES = 1 << 20  # of a block, about: so few that they stay in the cache


def _blocks(q: Tensor, begins: Tensor | None) -> Iterator[tuple[slice, slice, slice, Tensor]]:
    """Some heads, their queries of a block, the keys that any of these sees, and what is added to their scores
    (queries, keys); for q (B·H, T, D) and `Documents.begins`, or none where each row is one."""
    number, T, _ = q.shape
    rows: list[Tensor | None] = [None] if begins is None else list(begins)  # all at once, or each by itself
    for row, places in enumerate(rows):
        for start in range(0, T, QUERIES):
            end, first = min(T, start + QUERIES), 0 if places is None else int(places[start])
            mask = torch.full((end - start, end - first), -torch.inf, dtype=q.dtype).triu_(start - first + 1)
            if places is not None:
                mask.masked_fill_(torch.arange(first, end) < places[start:end, None], -torch.inf)
            heads = max(1, SCORES // mask.numel())
            last = (row + 1) * number // len(rows)
            for head in range(row * number // len(rows), last, heads):
                yield slice(head, min(last, head + heads)), slice(start, end), slice(first, end), mask


def _probabilities(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Of (heads, block, D) queries and (heads, end, D) keys."""
    return torch.baddbmm(mask, queries, keys.mT, alpha=1 / math.sqrt(queries.shape[-1])).softmax(-1)


def attention_mask(mask: Tensor) -> Tensor:
    """Which tokens each token may see, (B, 1, T, T) bool, where (B, T) `mask` is False for padding.

    Padded queries see themselves, because a softmax over nothing is not a number.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    return (places <= places[:, None]) & mask[:, None, None] | (places == places[:, None])
