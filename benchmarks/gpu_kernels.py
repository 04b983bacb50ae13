"""Compiles the GPU's kernels for a Hopper card, which needs the `triton` package and no GPU.

    python -m benchmarks.gpu_kernels

Every kernel, in every configuration that is tuned over, for weights in bfloat16, 8 and 4 bits at the 3.6B shape, down
to machine code by Triton's own assembler. What they compute is checked by `benchmarks.gpu_generation --toy`.
"""

from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from janeox.engine import triton_kernels as kernels

HOPPER = GPUTarget("cuda", 90, 32)
FLOAT, HALF, LONG, INT = "*fp32", "*bf16", "*i64", "i32"


def main() -> None:
    compiled = 0
    for kernel, types, constants, options in variants():
        function = kernel
        while not isinstance(function, triton.runtime.JITFunction):
            function = function.fn
        signature = {name: types.get(name, "constexpr") for name in function.arg_names}
        places = {(function.arg_names.index(name),): value for name, value in constants.items()}
        code = triton.compile(ASTSource(function, signature, places), target=HOPPER, options=options)
        compiled += 1
        print(f"{function.__name__} {constants} {options}: {code.metadata.shared:,} bytes of shared memory", flush=True)
    print(f"{compiled} variants compiled")


def variants() -> Iterator[tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    """(kernel, types of its arguments, its constants, options)."""
    for bits, weight in ((16, HALF), (8, "*i8"), (4, "*u8")):
        types = {"x": HALF, "weight": weight, "scales": "*fp16", "bias": HALF, "residual": HALF, "y": HALF}
        types |= {"N": INT, "K": INT}
        for gelu in ("", "none", "tanh"):
            flags = {
                "BITS": bits,
                "BIAS": True,
                "GELU": gelu,
                "RESIDUAL": not gelu,
                "GROUP": kernels.GROUP,
                "SMALL_GROUP": kernels.SMALL_GROUP,
            }
            first = 1 if gelu else None  # the activation is the same in all configurations
            for config in kernels._one_row.configs[:first]:
                yield kernels._one_row, types, flags | config.kwargs, {"num_warps": config.num_warps}
            for config in kernels._few_rows.configs[:first]:
                options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
                for rows in (16, 32, 64):
                    yield kernels._few_rows, types | {"B": INT}, flags | config.kwargs | {"BLOCK_B": rows}, options
    types = {"x": HALF, "weight": HALF, "bias": HALF, "y": HALF, "C": INT, "eps": "fp32"}
    yield kernels._layer_norm, types, {"BLOCK": 4096}, {"num_warps": 8}
    cache = {"q": HALF, "keys": HALF, "values": HALF, "slots": LONG, "positions": LONG, "H": INT, "capacity": INT}
    types = cache | {"qkv": HALF, "cos": FLOAT, "sin": FLOAT}
    yield kernels._rotate_and_store, types, {"R": 128, "D": 128}, {"num_warps": 1}
    for split in (128, 512):
        types = cache | {"parts": FLOAT, "scale": "fp32"}
        yield kernels._attend, types, {"D": 128, "SPLIT": split, "BLOCK": 32}, {"num_warps": 4}
    types = {"parts": FLOAT, "out": HALF, "num_splits": INT}
    yield kernels._join, types, {"D": 128, "SPLITS": 32}, {"num_warps": 4}


if __name__ == "__main__":
    main()
