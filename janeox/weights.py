"""Model files: find the folder, read its config and tensors without a second copy, write them back.

Reads what is out there: `model.safetensors` or `pytorch_model.bin`, single or in shards. Both are memory-mapped, so
that opening a folder costs no more memory than its weights.
"""

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from janeox.errors import JaneoxError

# Written by transformers before 4.31 and by RLHF trainers. None is a weight: the masks are implied by causality, the
# rotary frequencies are computed from the config (a stored copy may have been rounded to bfloat16), and a value head
# has no part in the language model.
NOT_WEIGHTS = re.compile(r"attention\.(bias|masked_bias)$|rotary_emb\.inv_freq$|^v_head\.")

MAX_FILE_BYTES = 5_000_000_000


def resolve(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: `name` itself if it is a folder, otherwise the Hugging Face Hub's repository.

    A Hub id goes through huggingface_hub, so its cache, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` count. Of the two
    weight formats only one is fetched.

    Raises:
        JaneoxError: no such folder, and no repository of that name could be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) or str(name).startswith((".", "/")):
        raise JaneoxError(f"{name}: no such folder, and not a Hub id of the form OWNER/NAME")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=patterns))

    try:
        folder = fetch(["*.json", "*.model", "*.safetensors"])
        if not list(folder.glob("*.safetensors")):
            folder = fetch(["*.json", "*.model", "pytorch_model*.bin"])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise JaneoxError(f"{name}: no such folder here, and not to be had from the Hub ({reason})") from error
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        JaneoxError: missing, unreadable, or not a JSON object.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JaneoxError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise JaneoxError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(table, dict):
        raise JaneoxError(f"{path}: expected a JSON object, found {type(table).__name__}")
    return table


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a model folder by name, memory-mapped in their stored dtype; buffers of old files are left out.

    Raises:
        JaneoxError: no weights there, a shard is missing or damaged, or a pickle holds anything but tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        read = _read_safetensors if file.suffix == ".safetensors" else _read_pickle
        tensors |= read(file)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights; safetensors where it has both formats."""
    for single, index in (("model.safetensors", "model.safetensors.index.json"),
                          ("pytorch_model.bin", "pytorch_model.bin.index.json")):  # fmt: skip
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _indexed_files(folder / index)
    raise JaneoxError(
        f"{folder}: no weights there (looked for model.safetensors, pytorch_model.bin and their .index.json)"
    )


def _indexed_files(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise JaneoxError(f"{index}: has no 'weight_map'")
    files = []
    for name in sorted(set(map(str, weight_map.values()))):
        # An index comes with the model; it must not be able to name a file elsewhere on this machine.
        if Path(name).name != name:
            raise JaneoxError(f"{index}: names {name!r}, which is not a file in the same folder")
        if not (index.parent / name).is_file():
            raise JaneoxError(f"{index.parent / name}: missing, though {index.name} names it; download it again")
        files.append(index.parent / name)
    return files


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys() if not NOT_WEIGHTS.search(name)}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise JaneoxError(f"{file}: damaged or not a safetensors file ({error}); download or save it again") from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        # Files from before torch 1.6 are no zip archives and cannot be mapped.
        with open(file, "rb") as handle:
            is_zip = handle.read(2) == b"PK"
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise JaneoxError(f"{file}: holds more than tensors, and is not opened for safety ({error})") from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise JaneoxError(f"{file}: damaged or not a PyTorch file ({error}); download or save it again") from error
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise JaneoxError(f"{file}: expected a table of tensors by name")
    return {name: tensor for name, tensor in stored.items() if not NOT_WEIGHTS.search(name)}


def write_weights(tensors: dict[str, Tensor], folder: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Writes `model.safetensors`, or numbered shards of at most `max_file_bytes` and their index.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_file_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
    if len(shards) == 1:
        _write_safetensors(shards[0], folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_safetensors(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_safetensors(tensors: dict[str, Tensor], file: Path) -> None:
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        # The library hides the error number inside its message.
        number = re.search(r"os error (\d+)", str(error))
        code = int(number.group(1)) if number else 0
        raise OSError(code, os.strerror(code) if code else str(error), str(file)) from error
