"""Matrix products of training on a CPU: native ones where PyTorch's libraries leave half of the processor unused.

On AMD's processors MKL takes AVX2 for float32 though they have AVX-512, and oneDNN's bfloat16 products are slower than
they could be; native/product.h is faster there (docs/training.md has figures), reads the float32 weights without a copy
in bfloat16, and gives their gradient in float32. Everywhere else PyTorch multiplies.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janeox.native.training import multiply, pay

FEW = 48  # rows of x or of the weights, below which bringing the weights into order does not pay


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `torch.nn.functional.linear`, also under autocast: x (…, K), weight (N, K), bias (N,) → (…, N)."""
    if x.device.type != "cpu":
        return F.linear(x, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    if x.numel() >= FEW * x.shape[-1] and len(weight) >= FEW and has_native(x.flatten(0, -2), weight.T):
        return _Linear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return product(x.flatten(0, -2), weight.T, bias=bias).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)  # (rows, N)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            product(grad, weight).unflatten(0, x.shape[:-1]) if to_x else None,
            product(grad.T, x.flatten(0, -2), weight.dtype) if to_weight else None,
            grad.sum(0).to(ctx.bias_dtype) if to_bias else None,
        )


def product(a: Tensor, b: Tensor, dtype: torch.dtype | None = None, bias: Tensor | None = None) -> Tensor:
    """a (M, K) · b (K, N) + bias (N,) → (M, N), summed in float32.

    Products are in the dtype of `a`, whatever that of `b`; the result too, unless `dtype` says otherwise.
    """
    dtype = dtype or a.dtype
    if not has_native(a, b):
        out = a @ b.to(a.dtype)
        return (out if bias is None else out + bias.to(out.dtype)).to(dtype)
    out = torch.empty(a.shape[0], b.shape[1], dtype=dtype)
    multiply(_dense(a), _dense(b), out, None if bias is None else bias.float())
    return out


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(…, M, K) · (…, K, N) of one dtype, as `@`."""
    if a.ndim == 2:
        return product(a, b)
    if has_native(a[0], b[0]):
        return torch.stack([matmul(*pair) for pair in zip(a, b, strict=True)])
    return a @ b


def has_native(a: Tensor, b: Tensor) -> bool:
    """Whether `product` multiplies such matrices natively."""
    half = a.dtype == torch.bfloat16
    return (
        a.device.type == "cpu"
        and {type(a), type(b)} <= {Tensor, nn.Parameter}  # not the parts of a matrix that processes share
        and not torch.compiler.is_compiling()
        and a.dtype in (torch.bfloat16, torch.float32)
        and b.dtype in (a.dtype, torch.float32)
        and (not half or a.stride(0) == 1 or (a.shape[1] % 2 == 0 and a.stride(0) % 2 == 0))  # pairs lie whole in a row
        and pay(half)
    )


def _dense(x: Tensor) -> Tensor:
    """With the numbers of a row, or of a column, side by side in memory."""
    rows, columns = x.shape
    if (x.stride(1) == 1 and x.stride(0) >= columns) or (x.stride(0) == 1 and x.stride(1) >= rows):
        return x
    return x.contiguous()
