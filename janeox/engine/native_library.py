"""The engine's calls of the compiled library, and its C structures (janeox/native/engine.h, engine.cpp)."""

import ctypes
from functools import cache

import torch

from janeox.native import library


class NotCovered(Exception):
    """The native kernels cannot run this model here: torch has to do it."""


def structure(name: str, **fields: object) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


# The structures of native/engine.h and engine.cpp.
POINTER, INT = ctypes.c_void_p, ctypes.c_int32
Matrix = structure(
    "Matrix", weight=POINTER, scales=POINTER, bias=POINTER, panels=INT, columns=INT, bits=INT, bfloat=INT
)
Norm = structure("Norm", weight=POINTER, bias=POINTER)
Layer = structure(
    "Layer",
    input_layernorm=Norm,
    post_attention_layernorm=Norm,
    query_key_value=Matrix,
    dense=Matrix,
    dense_h_to_4h=Matrix,
    dense_4h_to_h=Matrix,
)
Model = structure(
    "Model",
    layers=ctypes.POINTER(Layer),
    embedding=POINTER,
    cos=POINTER,
    sin=POINTER,
    final_norm=Norm,
    head=Matrix,
    **dict.fromkeys(
        ("num_layers", "hidden", "heads", "head_dim", "rotary_dim", "half_embedding", "parallel_residual", "tanh_gelu"),
        INT,
    ),
    epsilon=ctypes.c_float,
)
Cache = structure("Cache", keys=POINTER, values=POINTER, key_scales=POINTER, value_scales=POINTER, blocks=INT, bits=INT)
Rows = structure(
    "Rows",
    **dict.fromkeys(("ids", "slots", "starts", "counts"), POINTER),
    num_rows=INT,
    num_tokens=INT,
    wanted=POINTER,
    num_wanted=INT,
)


@cache
def native_library() -> ctypes.CDLL | None:
    """The compiled library with the engine's calls declared; None where it was not built."""
    loaded = library()
    if loaded is None:
        return None
    calls: dict[str, tuple[type | None, list[type]]] = {
        "janeox_engine_new": (POINTER, [ctypes.c_int, ctypes.c_char_p]),
        "janeox_engine_free": (None, [POINTER]),
        "janeox_engine_name": (ctypes.c_char_p, [POINTER]),
        "janeox_forward": (ctypes.c_bool, [POINTER] * 5),
        "janeox_read": (ctypes.c_double, [POINTER, POINTER, ctypes.c_int64]),
        "janeox_peak": (ctypes.c_double, [POINTER, ctypes.c_int]),
    }
    for name, (result, arguments) in calls.items():
        call = getattr(loaded, name)
        call.restype, call.argtypes = result, arguments
    return loaded


class NativeEngine:
    """A team of threads with the kernels for this processor.

    Args:
        threads: None for as many as torch uses, which is the number of cores.
        kernels: "avx512bf16", "avx512", "avx2" or "neon"; empty for the best of this machine.

    Raises:
        NotCovered: no library, or no such kernels here.
    """

    def __init__(self, threads: int | None = None, kernels: str = ""):
        self.handle: int | None = None
        loaded = native_library()
        if loaded is None:
            raise NotCovered("the native library was not built")
        self.library = loaded
        self.handle = loaded.janeox_engine_new(threads or torch.get_num_threads(), kernels.encode())
        if self.handle is None:
            asked = f" {kernels!r}" if kernels else ""
            raise NotCovered(f"no kernels{asked} for this processor")
        self.kernels: str = loaded.janeox_engine_name(self.handle).decode()

    def __del__(self) -> None:
        if self.handle is not None:
            self.library.janeox_engine_free(self.handle)
