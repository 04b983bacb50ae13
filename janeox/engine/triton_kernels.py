"""What a pass of GPT-NeoX needs beside large matrix products, as Triton kernels for a GPU.

B rows are tokens, each with a slot of the KV cache and a position there; N outputs, K inputs, H heads, D head size, R
rotated part of D. All sums are in float32. A position outside the slot writes to the cache's place for padding.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

GROUP = 128
"""Inputs of an 8-bit weight that share a scale; K is a multiple of it. Of 4 bits, 64 bytes hold as many: the first half
in their low halves."""
SMALL_GROUP = 32
"""Inputs of a 4-bit weight that share a scale."""
FEW = 64
"""Rows up to which reading the weights is what a matrix product costs."""


def _tuned(configs: list[triton.Config], key: list[str]) -> Callable[[Any], Any]:
    """The fastest of the configs on this GPU, measured at first use; the interpreter takes the first."""
    return triton.autotune(configs[:1] if os.environ.get("TRITON_INTERPRET") == "1" else configs, key=key)


@triton.jit
def _finished(sums, n, at, inside, bias, residual, BIAS: tl.constexpr, GELU: tl.constexpr, RESIDUAL: tl.constexpr):
    """Bias, activation and residual. `n` and `at` (same shape as sums): the output, and its place in the result."""
    if BIAS:
        sums += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)
    if GELU == "none":
        sums = 0.5 * sums * (1.0 + tl.erf(sums * 0.7071067811865476))
    if GELU == "tanh":  # x·sigmoid(2u) is x/2·(1 + tanh u)
        sums *= tl.sigmoid(1.5957691216057308 * (sums + 0.044715 * sums * sums * sums))
    if RESIDUAL:
        sums += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    return sums


@triton.jit
def _four_bits(levels, scales, n, k, K, inside, SMALL_GROUP: tl.constexpr):
    """Weights (rows n, inputs k) in float32; levels are raised by 8."""
    scale = tl.load(scales + n * (K // SMALL_GROUP) + k // SMALL_GROUP, mask=inside, other=0.0)
    return (levels.to(tl.float32) - 8.0) * scale.to(tl.float32)


@_tuned(
    [
        triton.Config({"BLOCK_N": block, "GROUPS": groups}, num_warps=warps)
        for block, groups, warps in ((1, 8, 4), (2, 8, 4), (4, 8, 4), (4, 4, 4), (8, 4, 4), (2, 16, 8), (4, 8, 8))
    ],
    key=["N", "K"],
)
@triton.jit
def _one_row(
    x, weight, scales, bias, residual, y, N, K,
    BITS: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr, RESIDUAL: tl.constexpr, GROUP: tl.constexpr,
    SMALL_GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Products and sums of one row: wide loads, all of a tile in flight at once, and one reduction at the end."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    WIDTH: tl.constexpr = GROUP // 2 if BITS == 4 else GROUP  # numbers of a group's weights in memory
    group, column = tl.arange(0, GROUPS), tl.arange(0, WIDTH)
    sums = tl.zeros((BLOCK_N, GROUPS, WIDTH), tl.float32)
    for first in range(0, K // GROUP, GROUPS):
        k = (first + group)[:, None] * GROUP + column[None, :]  # (GROUPS, WIDTH)
        inside = (n < N)[:, None, None] & (k < K)[None, :, :]
        if BITS == 4:
            at = (first + group)[:, None] * WIDTH + column[None, :]
            both = tl.load(weight + n[:, None, None] * (K // 2) + at[None, :, :], mask=inside, other=0)
            for high in tl.static_range(2):
                own = k + high * WIDTH
                part = _four_bits(
                    (both >> (4 * high)) & 15, scales, n[:, None, None], own[None, :, :], K, inside, SMALL_GROUP
                )
                sums += part * tl.load(x + own, mask=k < K, other=0.0).to(tl.float32)[None, :, :]
        else:
            product = tl.load(weight + n[:, None, None] * K + k[None, :, :], mask=inside, other=0).to(tl.float32)
            product *= tl.load(x + k, mask=k < K, other=0.0).to(tl.float32)[None, :, :]
        if BITS == 8:
            there = (n < N)[:, None] & (first + group < K // GROUP)[None, :]
            scale = tl.load(scales + n[:, None] * (K // GROUP) + (first + group)[None, :], mask=there, other=0.0)
            product *= scale.to(tl.float32)[:, :, None]
        if BITS != 4:
            sums += product
    total = tl.sum(tl.sum(sums, 2), 1)  # (BLOCK_N,)
    total = _finished(total, n, n, n < N, bias, residual, BIAS, GELU, RESIDUAL)
    tl.store(y + n, total.to(y.dtype.element_ty), mask=n < N)


@_tuned(
    [
        triton.Config({"BLOCK_N": block}, num_warps=warps, num_stages=stages)
        for block, warps, stages in ((16, 4, 5), (32, 4, 4), (64, 4, 4), (64, 8, 3))
    ],
    key=["N", "K", "BLOCK_B"],
)
@triton.jit
def _few_rows(
    x, weight, scales, bias, residual, y, B, N, K,
    BITS: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr, RESIDUAL: tl.constexpr, GROUP: tl.constexpr,
    SMALL_GROUP: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Every weight is read once for up to BLOCK_B rows; the products are the tensor cores'."""
    n, b = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_B)
    WIDTH: tl.constexpr = GROUP // 2 if BITS == 4 else GROUP
    sums = tl.zeros((BLOCK_N, BLOCK_B), tl.float32)
    for group in range(0, K // GROUP):
        k = group * GROUP + tl.arange(0, WIDTH)
        there = (n < N)[:, None]
        if BITS == 4:
            at = group * WIDTH + tl.arange(0, WIDTH)
            both = tl.load(weight + n[:, None] * (K // 2) + at[None, :], mask=there, other=0)
            for high in tl.static_range(2):
                own = k + high * WIDTH
                part = _four_bits((both >> (4 * high)) & 15, scales, n[:, None], own[None, :], K, there, SMALL_GROUP)
                rows = tl.load(x + b[None, :] * K + own[:, None], mask=(b < B)[None, :], other=0.0)
                sums += tl.dot(part.to(rows.dtype), rows, input_precision="ieee")
        else:
            part = tl.load(weight + n[:, None] * K + k[None, :], mask=there, other=0)
            rows = tl.load(x + b[None, :] * K + k[:, None], mask=(b < B)[None, :], other=0.0)  # (WIDTH, BLOCK_B)
            product = tl.dot(part.to(rows.dtype), rows, input_precision="ieee")
            if BITS == 8:
                scale = tl.load(scales + n * (K // GROUP) + group, mask=n < N, other=0.0).to(tl.float32)
                product *= scale[:, None]
            sums += product
    inside = (n < N)[:, None] & (b < B)[None, :]
    at = b[None, :] * N + n[:, None]
    sums = _finished(sums, n[:, None] + 0 * b[None, :], at, inside, bias, residual, BIAS, GELU, RESIDUAL)
    tl.store(y + at, sums.to(y.dtype.element_ty), mask=inside)


def linear(
    x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None,
    gelu: str = "", residual: Tensor | None = None, dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """x (B, K) with B ≤ `FEW`, weight (N, K) in x's dtype, or of `QuantisedLinear` → (B, N).

    Args:
        gelu: "none" (exact) or "tanh", as `F.gelu` names them; "" applies none.
        residual: (B, N), added at the end.
        dtype: of the result; x's by default.
    """
    B, K = x.shape
    N = weight.shape[0]
    y = torch.empty(B, N, dtype=dtype or x.dtype, device=x.device)
    given = [weight if tensor is None else tensor for tensor in (scales, bias, residual)]  # what is not read may be any
    bits = {torch.int8: 8, torch.uint8: 4}.get(weight.dtype, 16)
    flags = {"BITS": bits, "BIAS": bias is not None, "GELU": gelu, "RESIDUAL": residual is not None}
    grid = lambda meta: (triton.cdiv(N, meta["BLOCK_N"]),)  # noqa: E731
    if B == 1:
        _one_row[grid](x, weight, *given, y, N, K, **flags, GROUP=GROUP, SMALL_GROUP=SMALL_GROUP)
    else:
        rows = max(16, triton.next_power_of_2(B))
        _few_rows[grid](x, weight, *given, y, B, N, K, **flags, GROUP=GROUP, SMALL_GROUP=SMALL_GROUP, BLOCK_B=rows)
    return y


@triton.jit
def _layer_norm(x, weight, bias, y, C, eps, BLOCK: tl.constexpr):
    c = tl.arange(0, BLOCK)
    inside, at = c < C, tl.program_id(0) * C + c
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, values - tl.sum(values, 0) / C, 0.0)
    scaled = centred / tl.sqrt(tl.sum(centred * centred, 0) / C + eps)
    scaled *= tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    scaled += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, scaled.to(y.dtype.element_ty), mask=inside)


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """(B, C) → (B, C)."""
    B, C = x.shape
    y = torch.empty_like(x)
    _layer_norm[(B,)](x, norm.weight, norm.bias, y, C, norm.eps, BLOCK=triton.next_power_of_2(C), num_warps=8)
    return y


@triton.jit
def _rotate_and_store(qkv, cos, sin, slots, positions, q, keys, values, H, capacity, R: tl.constexpr, D: tl.constexpr):
    row, head = tl.program_id(0), tl.program_id(1)
    slot, position = tl.load(slots + row), tl.load(positions + row)
    place = tl.where((position >= 0) & (position < capacity), position, capacity)
    d = tl.arange(0, D)
    first, turned = d < R // 2, d < R
    angle = tl.where(first, d, d - R // 2)
    partner = tl.where(first, d + R // 2, tl.where(turned, d - R // 2, d))
    c = tl.load(cos + place * (R // 2) + angle, mask=turned, other=1.0)
    s = tl.load(sin + place * (R // 2) + angle, mask=turned, other=0.0) * tl.where(first, -1.0, 1.0)
    base = qkv + (row * H + head) * 3 * D
    query = tl.load(base + d).to(tl.float32) * c + tl.load(base + partner).to(tl.float32) * s
    key = tl.load(base + D + d).to(tl.float32) * c + tl.load(base + D + partner).to(tl.float32) * s
    at = ((slot * H + head) * (capacity + 1) + place) * D + d
    tl.store(q + (row * H + head) * D + d, query.to(q.dtype.element_ty))
    tl.store(keys + at, key.to(keys.dtype.element_ty))
    tl.store(values + at, tl.load(base + 2 * D + d))


def rotate_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Rotated queries (B, H, D); the rotated keys, and the values, go to one layer's cache (slots, H, capacity + 1, D).

    Args:
        qkv: (B, H·3·D), per head q, k, v.
        cos, sin: (capacity + 1, R / 2) float32.
        slots, positions: (B,).
    """
    _, H, places, D = keys.shape
    q = torch.empty(len(qkv), H, D, dtype=qkv.dtype, device=qkv.device)
    grid, R = (len(qkv), H), 2 * cos.shape[1]
    _rotate_and_store[grid](qkv, cos, sin, slots, positions, q, keys, values, H, places - 1, R=R, D=D, num_warps=1)
    return q


@triton.jit
def _attend(
    q,
    keys,
    values,
    slots,
    positions,
    parts,
    H,
    capacity,
    scale,
    D: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head of a row over `SPLIT` stored tokens: a sum by weights exp(score − best), best, the weights' sum."""
    row, head, split = tl.program_id(0) // H, tl.program_id(0) % H, tl.program_id(1)
    length = tl.minimum(tl.load(positions + row) + 1, capacity + 1).to(tl.int32)
    base = (tl.load(slots + row) * H + head) * (capacity + 1) * D
    d = tl.arange(0, D)
    query = tl.load(q + tl.program_id(0) * D + d).to(tl.float32) * scale
    mixed = tl.zeros((D,), tl.float32)
    total = tl.sum(mixed, 0)  # 0 as a value that a loop may change
    best = total - float("inf")
    for start in range(split * SPLIT, tl.minimum(split * SPLIT + SPLIT, length), BLOCK):
        s = start + tl.arange(0, BLOCK)
        inside, at = s < length, base + s[:, None] * D + d[None, :]
        key = tl.load(keys + at, mask=inside[:, None], other=0.0).to(tl.float32)
        score = tl.where(inside, tl.sum(key * query[None, :], 1), -float("inf"))
        better = tl.maximum(best, tl.max(score, 0))
        shrink, weight = tl.exp(best - better), tl.exp(score - better)
        value = tl.load(values + at, mask=inside[:, None], other=0.0).to(tl.float32)
        mixed = mixed * shrink + tl.sum(weight[:, None] * value, 0)
        total = total * shrink + tl.sum(weight, 0)
        best = better
    out = parts + (tl.program_id(0) * tl.num_programs(1) + split) * (D + 2)
    tl.store(out + d, mixed)
    tl.store(out + D, best)
    tl.store(out + D + 1, total)


@triton.jit
def _join(parts, out, num_splits, D: tl.constexpr, SPLITS: tl.constexpr):
    split, d = tl.arange(0, SPLITS), tl.arange(0, D)
    at, inside = (tl.program_id(0) * num_splits + split) * (D + 2), split < num_splits
    best = tl.load(parts + at + D, mask=inside, other=-float("inf"))
    there = best > -float("inf")  # a split behind the text's end, or a row that is padding, has nothing
    weight = tl.where(there, tl.exp(best - tl.max(best, 0)), 0.0)
    total = tl.sum(weight * tl.load(parts + at + D + 1, mask=inside, other=0.0), 0)
    mixed = tl.load(parts + at[:, None] + d[None, :], mask=inside[:, None], other=0.0)
    result = tl.sum(mixed * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(out + tl.program_id(0) * D + d, result.to(out.dtype.element_ty))


def attend(q: Tensor, keys: Tensor, values: Tensor, slots: Tensor, positions: Tensor) -> Tensor:
    """Each row (B, H, D) over what its slot holds up to its position → (B, H·D). No more of the cache is read."""
    B, H, D = q.shape
    capacity = keys.shape[2] - 1
    split = 128 if B * H < 256 else 512  # stored tokens of one program: few rows of long texts are shared by many
    splits = triton.cdiv(capacity + 1, split)
    parts = torch.empty(B * H, splits, D + 2, dtype=torch.float32, device=q.device)
    grid, scale = (B * H, splits), D**-0.5
    _attend[grid](q, keys, values, slots, positions, parts, H, capacity, scale, D=D, SPLIT=split, BLOCK=32, num_warps=4)
    out = torch.empty(B, H * D, dtype=q.dtype, device=q.device)
    _join[(B * H,)](parts, out, splits, D=D, SPLITS=triton.next_power_of_2(splits), num_warps=4)
    return out
