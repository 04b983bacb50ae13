"""Matrix products of the layers in 8-bit floats, with PyTorch's scaled products.

Each operand is scaled as a whole so that its largest number is the format's, anew each time: e4m3 for what goes
forward, e5m2, which reaches further, for gradients (arXiv 2209.05433). Weights, their gradients and the optimizer are
as without; attention, norms, embedding and head stay in bfloat16, and so does all that is not to be differentiated.
"""

from typing import Any

import torch
from torch import Tensor

from janeox.errors import JaneoxError
from janeox.model import GPTNeoX, Linear

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16  # of which the hardware wants every size of a product


class Float8Linear(Linear):
    """A `Linear` whose three products are in 8-bit floats where a gradient is wanted."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(input)
        x = input.to(torch.bfloat16)
        y = _Product.apply(x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Product(torch.autograd.Function):
    """x (N, K) times weight (M, K) transposed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x8, x_scale = _scaled(x, FORWARD)
        w8, w_scale = _scaled(weight, FORWARD)
        # The weight is scaled again for the gradient: FSDP frees it in between, and 8 bits of it would not be freed.
        ctx.save_for_backward(x8, x_scale, weight)
        return _multiply(x8, w8, x_scale, w_scale, fast=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x8, x_scale, weight = ctx.saved_tensors
        grad8, scale = _scaled(grads[0], BACKWARD)  # (N, M)
        w8, w_scale = _scaled(weight, FORWARD)
        to_x = _multiply(grad8, w8.T.contiguous(), scale, w_scale, fast=False)
        to_weight = _multiply(grad8.T.contiguous(), x8.T.contiguous(), scale, x_scale, fast=False)
        return to_x, to_weight.to(weight.dtype)


def _scaled(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor in 8 bits, and the float32 scalar that it is to be multiplied with."""
    scale = (x.abs().amax().float() / torch.finfo(dtype).max).clamp(min=1e-30)
    return (x / scale).to(dtype), scale


def _multiply(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, fast: bool) -> Tensor:
    """a (N, K) times b (M, K) transposed, in bfloat16; `fast` sums with fewer bits."""
    return torch._scaled_mm(a, b.T, a_scale, b_scale, out_dtype=torch.bfloat16, use_fast_accum=fast)


def use_float8(model: GPTNeoX) -> None:
    """Makes the matrix products of all layers such, in place. Parameters and their names stay.

    Raises:
        JaneoxError: a width that 8-bit products do not take.
    """
    config = model.config
    for name in ("hidden_size", "intermediate_size"):
        if getattr(config, name) % MULTIPLE:
            raise JaneoxError(f"train.fp8: model.{name} = {getattr(config, name)} is no multiple of {MULTIPLE}")
    for layer in model.gpt_neox.layers:
        for module in layer.modules():
            if isinstance(module, Linear):
                module.__class__ = Float8Linear


def check_float8(device: torch.device, rows: int, length: int, tensor_parallel: int) -> None:
    """Raises JaneoxError where `use_float8` cannot be: no such hardware, cut layers, or an odd number of tokens.

    Args:
        rows: of a micro-batch, of `length` tokens each.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if capability is None or capability < (8, 9):
        has = f"{device.type} has none" if capability is None else f"this one has {capability[0]}.{capability[1]}"
        raise JaneoxError(f"train.fp8 needs a GPU of compute capability 8.9 or later (H100: 9.0); {has}")
    if tensor_parallel > 1:
        raise JaneoxError("train.fp8 does not go with train.tensor_parallel; leave one of them out")
    if rows * length % MULTIPLE:
        raise JaneoxError(
            f"train.fp8: data.micro_batch_rows × data.sequence_length = {rows * length} is no multiple of {MULTIPLE}"
        )
