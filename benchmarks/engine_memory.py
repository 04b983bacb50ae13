"""Resident memory of the engine over 10,000 requests of mixed length, native kernels and torch.

    python -m benchmarks.engine_memory [--requests 10000]

A small random model, so that requests are fast; what is looked for is growth, which does not depend on the weights.
Before each figure the C library gives back what it keeps free for later (malloc_trim): how its pieces lie is no growth.
"""

import argparse
import ctypes
import gc
import random
import time
from pathlib import Path

import torch

from benchmarks.machine import header
from janeox.config import GPTNeoXConfig, SamplingConfig
from janeox.engine.backend import Backend
from janeox.engine.engine import Engine
from janeox.engine.native_backend import NativeBackend
from janeox.engine.torch_backend import TorchBackend
from janeox.model import GPTNeoX


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    requests = parser.parse_args().requests
    print(header())
    config = GPTNeoXConfig(512, 64, 2, 2, 256, max_position_embeddings=256)
    model = GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).eval()
    print(
        f"{'backend':<10}" + "".join(f"{f'after {done:,}':>16}" for done in milestones(requests)) + "   (resident MB)"
    )
    run("native", NativeBackend.from_model(model, 16, 256, bits=8), requests)
    run("torch", TorchBackend(model, 16, 256), requests)


def milestones(requests: int) -> list[int]:
    return [requests * tenths // 10 for tenths in (1, 4, 7, 10)]


def run(name: str, backend: Backend, requests: int) -> None:
    engine, pick = Engine(backend), random.Random(0)
    sizes, submitted, start = [], 0, time.monotonic()
    for milestone in milestones(requests):
        while submitted < milestone or not engine.idle:
            while submitted < milestone and len(engine.waiting) < 16:
                length = int(pick.choice([pick.uniform(1, 8), pick.uniform(8, 200)]))
                sampling = SamplingConfig(max_new_tokens=pick.choice([1, 4, 16]), temperature=1.0, seed=submitted)
                engine.submit([pick.randrange(512) for _ in range(length)], sampling)
                submitted += 1
            engine.step()
        sizes.append(resident())
    print(f"{name:<10}" + "".join(f"{size:>16.1f}" for size in sizes) + f"   in {time.monotonic() - start:.0f} s")


def resident() -> float:
    """MB of this process now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
