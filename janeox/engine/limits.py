"""What this machine can do at best, measured by the native kernels: the limits that speeds are held against."""

import torch

from janeox.engine.native_library import NativeEngine
from janeox.engine.pages import huge_pages


def read_bandwidth(threads: int | None = None, num_bytes: int = 1 << 30, rounds: int = 3) -> float:
    """GB/s at which all threads together read memory that is in no cache; the best of some rounds.

    Raises:
        NotCovered: no native library, or no kernels for this processor.
    """
    engine = NativeEngine(threads)
    memory = torch.ones(num_bytes, dtype=torch.uint8)
    huge_pages(memory)
    seconds = [engine.library.janeox_read(engine.handle, memory.data_ptr(), num_bytes) for _ in range(rounds)]
    return num_bytes / min(seconds) / 1e9


def peak_operations(bits: int, threads: int | None = None, rounds: int = 5) -> float:
    """Multiplications and additions a second (10^9) of all threads in registers, the best of some rounds; `bits` 32:
    float32, 16: bfloat16, 8: int8."""
    engine = NativeEngine(threads)
    return max(engine.library.janeox_peak(engine.handle, bits) for _ in range(rounds)) / 1e9
