"""Weights in pages of 2 MB, which a processor reads about a tenth faster than those of 4 KB that a mapped file has."""

import ctypes
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

PAGE = 1 << 21
PORTION = 1 << 25  # bytes of a file that one thread reads at a time
MADV_COLLAPSE = 25  # madvise(2), Linux 6.1


def huge_pages(tensor: Tensor) -> None:
    """Asks the system to hold a large tensor in pages of 2 MB, now or as it is written. It may refuse."""
    first = -(-tensor.data_ptr() // PAGE) * PAGE
    size = (tensor.data_ptr() + tensor.nbytes - first) // PAGE * PAGE
    if size > 0 and hasattr(libc := ctypes.CDLL(None), "madvise"):
        for advice in (getattr(mmap, "MADV_HUGEPAGE", MADV_COLLAPSE), MADV_COLLAPSE):
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), advice)


def room_for(num_bytes: int) -> bool:
    """Whether the system has pages of 2 MB, and would have as much memory left as is asked for."""
    try:
        kinds = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return False  # not Linux, or built without them
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return "[never]" not in kinds and 2 * num_bytes <= available


def read_file(path: Path) -> Tensor:
    """A file's bytes (size,) in pages of 2 MB. Several threads read it, since none is as fast as the memory.

    Raises:
        OSError: it cannot be read, or became shorter meanwhile.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        tensor = torch.empty(size, dtype=torch.uint8)
        huge_pages(tensor)
        memory = tensor.numpy().data

        def read(first: int) -> None:
            done, end = first, min(first + PORTION, size)
            while done < end:
                count = os.preadv(file.fileno(), [memory[done:end]], done)
                if count == 0:
                    raise OSError(f"{path}: became shorter while it was read")
                done += count

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read, range(0, size, PORTION)))
    return tensor
