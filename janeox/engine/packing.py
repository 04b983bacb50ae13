"""Weights as the native kernels read them (janeox/native/engine.h): panels of 16 rows, 8 or 4 bits by groups.

Rounding is to nearest, without calibration data. The scale of a group of 4 bits is the best of a few by squared error.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janeox.errors import JaneoxError
from janeox.model import GPTNeoX

LANES = 16
GROUP = {8: 64, 4: 32}
BITS = (32, 16, 8, 4)
PORTION = 256  # rows that are packed at once; a multiple of LANES
SCALES = "_scales"  # of the tensor of this name without it


def packed_tensors(model: GPTNeoX, bits: int, into: dict[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a model, under their names: matrices packed, the embedding in 32 or 16 bits, the rest in float32.

    The head keeps 8 bits where the other matrices have 4: it decides the tokens, and is a small part of the whole.

    Args:
        into: what the same call yielded for a model of this shape; matrices are packed into the same memory, and in
            the same 16 bits.

    Raises:
        JaneoxError: weights that are not finite, or beyond what 16 bits hold.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield from pack(
                f"{name}.weight", module.weight, 8 if bits == 4 and module is model.embed_out else bits, into
            )
            if module.bias is not None:
                yield f"{name}.bias", padded(module.bias.float(), 0, LANES)
        elif isinstance(module, nn.LayerNorm):
            yield f"{name}.weight", module.weight.float()
            yield f"{name}.bias", module.bias.float()
        elif isinstance(module, nn.Embedding):
            yield f"{name}.weight", module.weight.to(torch.float32 if bits == 32 else torch.float16)


def pack(name: str, weight: Tensor, bits: int, into: dict[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
    """A matrix (N, K) under its name, and for 8 and 4 bits its scales; P panels of 16 rows, rows and columns padded.

    Returns:
        32: (P, K, 16) float32. 16: (P, K, 16) float16, or (P, K/2, 16, 2) where the matrix is bfloat16.
        8: (P, K/4, 16, 4) bytes. 4: (P, K/8, 16, 4) bytes of two columns, k and k + 4.
        Scales: (P, K/group, 16) float16.
    """
    half = torch.bfloat16 if weight.dtype == torch.bfloat16 else torch.float16
    dtype = into[name].dtype if into else {32: torch.float32, 16: half}.get(bits, torch.uint8)
    shape, scales_shape = packed_shapes(weight.shape[0], weight.shape[1], bits, dtype)
    packed = into[name] if into else torch.empty(shape, dtype=dtype)
    scales = into[name + SCALES] if into and bits < 16 else torch.empty(scales_shape, dtype=torch.float16)
    finite = True
    for first in range(0, len(weight), PORTION):  # so that what is computed on the way stays in the cache
        rows = padded(padded(weight[first : first + PORTION].float(), 0, LANES), 1, GROUP.get(bits, LANES))
        place = slice(first // LANES, (first + len(rows)) // LANES)
        panels = rows.view(-1, LANES, rows.shape[1])
        if bits >= 16:
            if dtype == torch.bfloat16:
                panels = panels.unflatten(2, (-1, 2))
            packed[place] = panels.transpose(1, 2)
            finite &= bool(packed[place].isfinite().all())
        else:
            packed[place], scales[place] = quantised_panels(panels, bits)
            finite &= bool(scales[place].isfinite().all())
    if not finite:
        raise JaneoxError(f"{name}: holds weights that are not finite in {bits} bits")
    yield name, packed
    if bits < 16:
        yield name + SCALES, scales


def quantised_panels(panels: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Panels (P, 16, K) → bytes (P, K/4 or K/8, 16, 4), scales (P, K/group, 16)."""
    P, _, K = panels.shape
    groups = panels.view(P, LANES, -1, GROUP[bits])
    scales = (absmax_scales if bits == 8 else best_scales)(groups)  # (P, 16, K/group, 1) float16
    levels = quantised(groups, scales, bits).add_(2 ** (bits - 1)).to(torch.uint8)
    if bits == 4:
        low, high = levels.view(P, LANES, K // 8, 2, 4).unbind(3)
        levels = low | high << 4
    fours = levels.view(P, LANES, -1).view(torch.int32).transpose(1, 2).contiguous()  # four bytes move together
    return fours.view(torch.uint8).view(P, -1, LANES, 4), scales[..., 0].transpose(1, 2)


def quantised(groups: Tensor, scales: Tensor, bits: int) -> Tensor:
    """The nearest levels, from -127 or -8 on."""
    steps = scales.float().reciprocal_()
    steps[scales == 0] = 0.0
    return (groups * steps).round_().clamp_(-127 if bits == 8 else -8, 127 if bits == 8 else 7)


def absmax_scales(groups: Tensor) -> Tensor:
    """So that the largest weight of a group is the last level."""
    return (groups.abs().amax(-1, keepdim=True) / 127).half()


def best_scales(groups: Tensor) -> Tensor:
    """For 16 levels from -8 to 7: candidates around the largest weight; the least squared error wins."""
    ends = torch.stack((groups.amax(-1, keepdim=True), groups.amin(-1, keepdim=True)))
    largest = torch.where(ends[0] >= -ends[1], ends[0], ends[1])
    best = best_error = None
    for divisor in (-8.0, -7.4, -6.8, -8.6, 7.5):
        scales = (largest / divisor).half()
        error = (quantised(groups, scales, 4) * scales - groups).square_().sum(-1, keepdim=True)
        if best is None or best_error is None:
            best, best_error = scales, error
        else:
            better = error < best_error
            best, best_error = torch.where(better, scales, best), torch.where(better, error, best_error)
    assert best is not None
    return best


def padded(x: Tensor, dim: int, multiple: int) -> Tensor:
    """With zeros behind, to a multiple."""
    missing = -x.shape[dim] % multiple
    return F.pad(x, [0, 0] * (x.ndim - 1 - dim) + [0, missing]) if missing else x


def matrix_bits(tensors: dict[str, Tensor], name: str) -> int:
    """What `pack` was asked for; the kind of a tensor says it.

    Raises:
        JaneoxError: none of that name.
    """
    if name not in tensors:
        raise JaneoxError(f"packed weights: {name!r} is missing")
    weight, scales = tensors[name], tensors.get(name + SCALES)
    if scales is None:
        return 32 if weight.dtype == torch.float32 else 16
    return 8 if weight.shape[1] * 4 == scales.shape[1] * GROUP[8] else 4


def packed_bits(tensors: dict[str, Tensor]) -> int:
    """Of the layers' matrices among a model's packed tensors."""
    return matrix_bits(tensors, "gpt_neox.layers.0.attention.query_key_value.weight")


def packed_shapes(rows: int, columns: int, bits: int, dtype: torch.dtype) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the tensors that `pack` yields; the second, of the scales, only for 8 and 4 bits."""
    group = GROUP.get(bits, LANES)
    P, K = -(-rows // LANES), -(-columns // group) * group
    floats = (P, K // 2, LANES, 2) if dtype == torch.bfloat16 else (P, K, LANES)
    weight = {8: (P, K // 4, LANES, 4), 4: (P, K // 8, LANES, 4)}.get(bits, floats)
    return weight, (P, K // group, LANES)
