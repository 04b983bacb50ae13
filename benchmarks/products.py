"""The matrix products of training on this CPU, native and PyTorch's in turn, in billions of operations a second.

    python -m benchmarks.products [--rounds 3]

The three products of a step for a matrix: y = x Wᵀ + b, the gradient of x, that of W; over several sets of tensors in
turn, so that none lies in a cache; medians. Weights are stored in float32: so the native kernel reads them, and gives
their gradient; PyTorch gets them in the dtype of the products. Before them, what the cores do with registers alone.
"""

import argparse
import itertools
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import header
from janeox.engine.limits import peak_operations
from janeox.native.training import multiply

SHAPES = {  # tokens, inputs, outputs
    "110M, dense_h_to_4h": (2048, 768, 3072),
    "110M, dense_4h_to_h": (2048, 3072, 768),
    "110M, dense": (2048, 768, 768),
    "110M, head": (2048, 768, 32000),
    "tiny-cpu, dense_h_to_4h": (4096, 256, 1024),
    "tiny-cpu, dense_4h_to_h": (4096, 1024, 256),
}
TOGETHER = 1 << 28  # bytes of all sets of tensors, more than a cache has
PRODUCTS = ("y", "to x", "to W")


def native(x: Tensor, y: Tensor, weight: Tensor, _half: Tensor, bias: Tensor, which: str) -> bool:
    if which == "y":
        return multiply(x, weight.T, y, bias)
    return multiply(y, weight, x) if which == "to x" else multiply(y.T, x, weight)


def torchs(x: Tensor, y: Tensor, _weight: Tensor, half: Tensor, bias: Tensor, which: str) -> Tensor:
    if which == "y":
        return F.linear(x, half, bias.to(x.dtype))
    return torch.mm(y, half, out=x) if which == "to x" else torch.mm(y.T, x, out=half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(header())
    for dtype, bits in ((torch.bfloat16, 16), (torch.float32, 32)):
        print(f"\n{dtype}, registers alone: {peak_operations(bits):,.0f}; native / PyTorch")
        print(f"{'':<26}" + "".join(f"{name:>14}" for name in PRODUCTS), flush=True)
        for name, (M, K, N) in SHAPES.items():
            number = max(2, TOGETHER // (4 * (M * K + M * N + 2 * N * K)))
            sets = []
            for _ in range(number):
                weight = torch.randn(N, K)
                of_set = (torch.randn(M, K).to(dtype), torch.randn(M, N).to(dtype), weight, weight.to(dtype))
                sets.append((*of_set, torch.randn(N)))
            print(f"{name:<26}", end="")
            for which in PRODUCTS:
                seconds: dict[object, list[float]] = {native: [], torchs: []}
                for _round, way, tensors in itertools.product(range(rounds), seconds, sets):
                    started = time.perf_counter()
                    way(*tensors, which)
                    seconds[way].append(time.perf_counter() - started)
                speeds = [2e-9 * M * K * N / statistics.median(of_way) for of_way in seconds.values()]
                print(f"{speeds[0]:>8,.0f} / {speeds[1]:,.0f}".ljust(14), end="", flush=True)
            print()


if __name__ == "__main__":
    main()
