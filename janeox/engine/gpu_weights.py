"""Weights of 8 or 4 bits for a GPU: read as they are where few rows share them, made whole first where many do."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janeox.engine.packing import absmax_scales, best_scales, quantised
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX

GROUP = {8: 128, 4: 32}
"""Inputs that share a scale, as in triton_kernels.py."""
BLOCK = 128
"""Inputs that 64 bytes of 4 bits hold: the first half of them in the low halves of the bytes."""


class QuantisedLinear(nn.Module):
    """A linear layer of whole numbers, −127 to 127 in 8 bits and −8 to 7 in 4; a group of inputs shares a scale."""

    weight: Tensor  # 8 bits: (N, K) int8; 4 bits: (N, K / 2) uint8, numbers raised by 8
    scales: Tensor  # (N, K / GROUP) float16

    def __init__(self, linear: nn.Linear, bits: int):
        super().__init__()
        self.bits, self.bias = bits, linear.bias
        N, K = linear.weight.shape
        grouped = linear.weight.detach().float().view(N, K // GROUP[bits], GROUP[bits])
        scales = (absmax_scales if bits == 8 else best_scales)(grouped)
        levels = quantised(grouped, scales, bits).view(N, K).to(torch.int8)
        if bits == 4:
            low, high = (levels + 8).to(torch.uint8).view(N, K // BLOCK, 2, BLOCK // 2).unbind(2)
            levels = (low | high << 4).view(N, K // 2)
        self.register_buffer("weight", levels)
        self.register_buffer("scales", scales[..., 0])

    def forward(self, x: Tensor) -> Tensor:
        levels, N = self.weight, len(self.weight)
        if self.bits == 4:
            bytes = levels.view(N, -1, BLOCK // 2)
            levels = torch.stack((bytes & 15, bytes >> 4), 2).to(torch.int8) - 8
        whole = levels.view(N, -1, GROUP[self.bits]).to(x.dtype) * self.scales[..., None].to(x.dtype)
        return F.linear(x, whole.view(N, -1), self.bias)


def quantise(model: GPTNeoX, bits: int) -> GPTNeoX:
    """The model, its layers' matrices changed in place to 8 or 4 bits; embedding and head stay as they are.

    Raises:
        JaneoxError: widths that are no multiples of 128, or weights that are not finite.
    """
    if model.config.hidden_size % BLOCK or model.config.intermediate_size % BLOCK:
        raise JaneoxError(f"{bits} bits on a GPU need widths that are multiples of {BLOCK}")
    for layer in model.gpt_neox.layers:
        for part, name in (
            (layer.attention, "query_key_value"),
            (layer.attention, "dense"),
            (layer.mlp, "dense_h_to_4h"),
            (layer.mlp, "dense_4h_to_h"),
        ):
            linear = getattr(part, name)
            if not linear.weight.isfinite().all():
                raise JaneoxError(f"{name}: weights that are not numbers")
            setattr(part, name, QuantisedLinear(linear, bits))
    return model
