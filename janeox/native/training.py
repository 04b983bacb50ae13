"""The calls of the compiled library that training uses (native/training.cpp), on tensors; all need the library."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from janeox.native import library


def _structure(name: str, **fields: list[str]) -> type[ctypes.Structure]:
    kinds = {"pointers": ctypes.c_void_p, "strides": ctypes.c_int64, "numbers": ctypes.c_int32}
    return type(
        name, (ctypes.Structure,), {"_fields_": [(field, kinds[kind]) for kind in fields for field in fields[kind]]}
    )


# The structures of native/engine.h.
_Product = _structure(
    "Product",
    pointers=["a", "b", "out", "bias"],
    strides=["a_stride", "b_stride", "out_stride"],
    numbers=["rows", "columns", "depth", "a_along", "b_along", "a_bfloat", "b_bfloat", "out_bfloat"],
)
_Heads = _structure(
    "Heads",
    pointers=["qkv", "cos", "sin", "begins", "out", "grad", "to_qkv"],
    numbers=["rows", "tokens", "heads", "head_dim", "rotary_dim", "angles_by_row", "bfloat"],
)


@cache
def _calls() -> ctypes.CDLL | None:
    loaded = library()
    if loaded is not None:
        pointer, whole, name, boolean = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_bool
        for call, arguments in {
            "janeox_products_pay": [boolean],
            "janeox_multiply": [pointer, whole, name],
            "janeox_attention": [pointer, boolean, whole, name],
            "janeox_cross_entropy": [
                pointer, boolean, ctypes.c_int64, whole, pointer, ctypes.c_float, pointer, whole,
            ],
        }.items():  # fmt: skip
            getattr(loaded, call).restype, getattr(loaded, call).argtypes = boolean, arguments
    return loaded


@cache
def pay(bfloat16: bool) -> bool:
    """Whether `multiply` and `attend` are faster on this processor than PyTorch: AMD's with AVX-512."""
    loaded = _calls()
    return loaded is not None and loaded.janeox_products_pay(bfloat16)


def multiply(a: Tensor, b: Tensor, out: Tensor, bias: Tensor | None = None, kernels: str = "") -> bool:
    """a (M, K) · b (K, N) + bias (N,) into `out`, of bfloat16 or float32; false where there are no kernels.

    Args:
        a, b: one stride of each is 1; of a bfloat16 `a` whose rows lie side by side, K and the other are even.
        bias: float32.
        kernels: by name, or the best of this machine.
    """
    loaded = _calls()
    a_along, b_along = a.stride(1) != 1, b.stride(1) == 1
    asked = _Product(
        a.data_ptr(), b.data_ptr(), out.data_ptr(), None if bias is None else bias.data_ptr(),
        a.stride(int(a_along)), b.stride(int(not b_along)), out.stride(0),
        a.shape[0], b.shape[1], a.shape[1], a_along, b_along, *(x.dtype == torch.bfloat16 for x in (a, b, out)),
    )  # fmt: skip
    if loaded is None:
        return False
    return loaded.janeox_multiply(ctypes.byref(asked), torch.get_num_threads(), kernels.encode())


def attend(
    qkv: Tensor, cos: Tensor, sin: Tensor, begins: Tensor | None, out: Tensor, grad: Tensor | None = None,
    kernels: str = "",
) -> bool:  # fmt: skip
    """Rotates queries and keys of qkv (B, T, H, 3, D), bfloat16 or float32, and puts the causal attention (B, T, H, D)
    into `out`; with its gradient `grad`, that of qkv. All are contiguous. False where there are no kernels.

    Args:
        cos, sin: (B or 1, T, R/2) float32.
        begins: (B, T) int32, the first token that each one sees; none where it is the first of the row.
    """
    loaded = _calls()
    B, T, H, _, D = qkv.shape
    asked = _Heads(
        qkv.data_ptr(), cos.data_ptr(), sin.data_ptr(), None if begins is None else begins.data_ptr(),
        out.data_ptr(), None if grad is None else grad.data_ptr(), out.data_ptr(),
        B, T, H, D, 2 * cos.shape[-1], len(cos) > 1, qkv.dtype == torch.bfloat16,
    )  # fmt: skip
    if loaded is None:
        return False
    return loaded.janeox_attention(ctypes.byref(asked), grad is not None, torch.get_num_threads(), kernels.encode())


def cross_entropy(logits: Tensor, targets: Tensor, z_loss: float, losses: Tensor) -> bool:
    """Puts the gradient in the place of (rows, V) logits, bfloat16 or float32, V a multiple of 32, and the loss of each
    row into `losses`, (rows,) float32; false where there are no kernels."""
    loaded = _calls()
    if loaded is None:
        return False
    return loaded.janeox_cross_entropy(
        logits.data_ptr(), logits.dtype == torch.bfloat16, *logits.shape, targets.contiguous().data_ptr(), z_loss,
        losses.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
