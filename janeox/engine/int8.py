"""Weights of 8 bits for a GPU: read as they are where few rows share them, made whole first where many do."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janeox.errors import JaneoxError
from janeox.model import GPTNeoX

GROUP = 128  # inputs that share a scale, as in triton_kernels.py


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers from −127 to 127 with a scale for each `GROUP` inputs."""

    weight: Tensor  # (N, K) int8
    scales: Tensor  # (N, K / GROUP) float16

    def __init__(self, linear: nn.Linear):
        super().__init__()
        N, K = linear.weight.shape
        grouped = linear.weight.detach().float().view(N, K // GROUP, GROUP)
        scales = (grouped.abs().amax(2) / 127).clamp(min=2**-24).half()
        levels = (grouped / scales.float()[..., None]).round().clamp(-127, 127)
        self.register_buffer("weight", levels.view(N, K).to(torch.int8))
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        N, K = self.weight.shape
        whole = self.weight.view(N, K // GROUP, GROUP).to(x.dtype) * self.scales[..., None].to(x.dtype)
        return F.linear(x, whole.view(N, K), self.bias)


def to_int8(model: GPTNeoX) -> GPTNeoX:
    """The model, its layers' matrices changed in place; embedding and head stay as they are.

    Raises:
        JaneoxError: widths that are no multiples of `GROUP`, or weights that are not finite.
    """
    if model.config.hidden_size % GROUP or model.config.intermediate_size % GROUP:
        raise JaneoxError(f"8 bits on a GPU need widths that are multiples of {GROUP}")
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
            setattr(part, name, Int8Linear(linear))
    return model
