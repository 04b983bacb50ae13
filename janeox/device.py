"""Where a model runs and in what precision."""

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext

import torch

from janeox.errors import JaneoxError


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, then Apple's, then the CPU.

    Raises:
        JaneoxError: no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise JaneoxError(f"device {name!r} is not to be had on this machine; use auto, cpu, cuda or mps") from error
    return device


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster there than float32: a GPU since Ampere, a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def pick_dtype(name: str, device: torch.device, stored: torch.dtype = torch.float32) -> torch.dtype:
    """The dtype to compute in: `auto` keeps a stored half precision where the hardware is fast in it.

    Raises:
        JaneoxError: an unknown name.
    """
    if name == "auto":
        halves = (torch.float16, torch.bfloat16)
        return stored if stored in halves and (device.type != "cpu" or fast_bfloat16(device)) else torch.float32
    dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}.get(name)
    if dtype is None:
        raise JaneoxError(f"dtype {name!r}: use auto, float32, float16 or bfloat16")
    return dtype


def device_memory(device: torch.device) -> int:
    """Bytes of the GPU's memory, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> None:
    """Makes the C library keep what this process frees, for its next tensors; does nothing where it cannot.

    By default it hands every large tensor's pages back at once and gets them anew, zeroed, for the next one, which
    takes a good part of a training step on a CPU.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give back
        library.mallopt(-4, 0)  # M_MMAP_MAX: no allocation by itself


def bfloat16_products(name: str, device: torch.device) -> bool:
    """Whether products are to be in bfloat16: `name` says so, or it is auto and the hardware is fast in it."""
    return name == "bfloat16" or (name == "auto" and fast_bfloat16(device))


def autocast(name: str, device: torch.device) -> AbstractContextManager:
    """Products in bfloat16 over float32 weights, where `bfloat16_products`."""
    return torch.autocast(device.type, torch.bfloat16) if bfloat16_products(name, device) else nullcontext()
