"""LoRA (arXiv 2106.09685) through peft: adapters beside the matrices of the layers, and their way into files."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from janeox.atomic import new_folder
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.settings.tune import Adapted

TARGETS = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def add(model: GPTNeoX, rank: int, alpha: int, seed: int, optimizer: str) -> None:
    """Puts adapters into the model and freezes everything else. At first they change nothing: B is zero.

    Raises:
        JaneoxError: peft is not installed, or the optimizer is made for whole matrices.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise JaneoxError("LoRA needs peft; install it: pip install 'janeox[tune]'") from error
    if optimizer == "muon":
        raise JaneoxError("optim.name = 'muon' is made for whole matrices; LoRA's factors take adamw")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@contextmanager
def switched_off(model: GPTNeoX) -> Iterator[None]:
    """Within it, the model is the one that it was before `add`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(weights: dict[str, Tensor], settings: Adapted) -> dict[str, Tensor]:
    """All weights by name, with adapters → those of the plain model that computes the same."""
    scale = settings.lora_alpha / settings.lora_rank
    plain = {name.replace(".base_layer", ""): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name, down in weights.items():
        if name.endswith(".lora_A.default.weight"):
            up = weights[name.replace(".lora_A.", ".lora_B.")]  # (out, rank); down is (rank, in)
            matrix = name.replace(".lora_A.default", "")
            plain[matrix] = plain[matrix].float() + scale * up.float() @ down.float()
    return plain


def write(settings: Adapted, write_model: Callable[..., None], folder: Path, weights: dict[str, Tensor]) -> None:
    """`model/` with the adapters merged, and beside it `adapter/`, which peft loads on transformers' model."""
    write_model(folder, merged(weights, settings))
    adapter = {
        f"base_model.model.{name.replace('.default', '')}": tensor.detach().cpu().contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.model,
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_alpha,
        "target_modules": TARGETS,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with new_folder(settings.out / "adapter") as new:
        save_file(adapter, new / "adapter_model.safetensors", metadata={"format": "pt"})
        (new / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
