"""Packed weights in a file: memory-mapped, or read into larger pages than a file's, which are faster.

It is a safetensors file, so that other programs can list and read it; what the tensors mean says packing.py.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from janeox.engine.pages import read_file, room_for
from janeox.errors import JaneoxError

FILE = "packed.safetensors"
ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector: where tensors begin."""
LAYOUT = "janeox-panels-1"
NAMES = {torch.uint8: "U8", torch.float16: "F16", torch.float32: "F32"}


def write_packed(tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes `packed.safetensors`; safetensors' own writer sorts by name and aligns to 8 bytes.

    The few tensors whose size is no multiple of the alignment come last, so that they move no other.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    ordered = sorted(tensors.items(), key=lambda item: item[1].nbytes % ALIGNMENT != 0)
    table: dict[str, object] = {"__metadata__": {"format": "pt", "layout": LAYOUT}}
    end = 0
    for name, tensor in ordered:
        offsets = [end, end + tensor.nbytes]
        table[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        end += tensor.nbytes
    header = json.dumps(table).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    with open(folder / FILE, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _, tensor in ordered:
            file.write(tensor.contiguous().numpy().data.cast("B"))


def read_packed(folder: Path, use_mmap: bool = False) -> dict[str, Tensor]:
    """The tensors of a folder's `packed.safetensors`.

    Args:
        use_mmap: memory-mapped, so that processes share them; otherwise that is so only where memory is short or has no
            large pages, and elsewhere they are read into such pages.

    Raises:
        JaneoxError: damaged, or written by another version.
    """
    path = folder / FILE
    try:
        with safe_open(path, framework="pt") as file:
            layout = (file.metadata() or {}).get("layout")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise JaneoxError(f"{path}: damaged or not a safetensors file ({error}); make it again") from error
    if layout != LAYOUT:
        raise JaneoxError(f"{path}: its layout is {layout!r}, this version reads {LAYOUT!r}; make it again")
    if use_mmap or not room_for(path.stat().st_size):
        return tensors
    return _in_memory(path, tensors)


def _in_memory(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, read. Those of the file were never touched, so that they took no memory."""
    content = read_file(path)
    length = 8 + int.from_bytes(content[:8].numpy().tobytes(), "little")
    table = json.loads(content[8:length].numpy().tobytes())
    read = {}
    for name, tensor in tensors.items():
        first, end = (length + offset for offset in table[name]["data_offsets"])
        read[name] = content[first:end].view(tensor.dtype).view(tensor.shape)
    return read
