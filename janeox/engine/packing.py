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
SCALES = "_scales"  # of the tensor of this name without it


def packed_tensors(model: GPTNeoX, bits: int) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a model, under their names: matrices packed, the embedding in 32 or 16 bits, the rest in float32.

    The head keeps 8 bits where the other matrices have 4: it decides the tokens, and is a small part of the whole.

    Raises:
        JaneoxError: weights that are not finite, or beyond what 16 bits hold.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield from pack(f"{name}.weight", module.weight, 8 if bits == 4 and module is model.embed_out else bits)
            if module.bias is not None:
                yield f"{name}.bias", padded(module.bias.float(), 0, LANES)
        elif isinstance(module, nn.LayerNorm):
            yield f"{name}.weight", module.weight.float()
            yield f"{name}.bias", module.bias.float()
        elif isinstance(module, nn.Embedding):
            yield f"{name}.weight", module.weight.to(torch.float32 if bits == 32 else torch.float16)


def pack(name: str, weight: Tensor, bits: int) -> Iterator[tuple[str, Tensor]]:
    """A matrix (N, K) under its name, and for 8 and 4 bits its scales; P panels of 16 rows, rows and columns padded.

    Returns:
        32, 16: (P, K, 16) floats. 8: (P, K/4, 16, 4) bytes. 4: (P, K/8, 16, 4) bytes of two columns, k and k + 4.
        Scales: (P, K/group, 16) float16.
    """
    group = GROUP.get(bits, LANES)
    weight = padded(padded(weight.float(), 0, LANES), 1, group)
    P, K = weight.shape[0] // LANES, weight.shape[1]
    if bits >= 16:
        panels = weight.view(P, LANES, K).transpose(1, 2).to(torch.float32 if bits == 32 else torch.float16)
        if not bool(panels.isfinite().all()):
            raise JaneoxError(f"{name}: holds weights that are not finite in {bits} bits")
        yield name, panels.contiguous()
        return
    groups = weight.view(P, LANES, K // group, group)
    scales = (absmax_scales if bits == 8 else best_scales)(groups)  # (P, 16, K/group, 1) float16
    if not bool(scales.isfinite().all()):
        raise JaneoxError(f"{name}: holds weights that are not finite in {bits} bits")
    levels = (quantised(groups, scales, bits) + 2 ** (bits - 1)).to(torch.uint8)
    if bits == 8:
        yield name, levels.view(P, LANES, K // 4, 4).transpose(1, 2).contiguous()
    else:
        low, high = levels.view(P, LANES, K // 8, 2, 4).unbind(3)
        yield name, (low | high << 4).transpose(1, 2).contiguous()
    yield name + SCALES, scales[..., 0].transpose(1, 2).contiguous()


def quantised(groups: Tensor, scales: Tensor, bits: int) -> Tensor:
    """The nearest levels, from -127 or -8 on."""
    steps = torch.where(scales == 0, 0.0, 1.0 / scales.float())
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


def packed_shapes(rows: int, columns: int, bits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the tensors that `pack` yields; the second, of the scales, only for 8 and 4 bits."""
    group = GROUP.get(bits, LANES)
    P, K = -(-rows // LANES), -(-columns // group) * group
    weight = {8: (P, K // 4, LANES, 4), 4: (P, K // 8, LANES, 4)}.get(bits, (P, K, LANES))
    return weight, (P, K // group, LANES)
