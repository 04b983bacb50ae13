"""transformers' own model with its numbers rounded as the CPU kernels round them: what quantised scores must be.

Written from the description of the format in docs/cpu.md and not from its code: float weights that lie on the
grid, and float activations that are put on theirs before each product.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

HALVED = "keys_and_values_in_float16"


def halved(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
    """Attention over keys and values as the cache holds them."""
    return sdpa_attention_forward(module, query, key.half().to(key), value.half().to(value), mask, **options)


AttentionInterface.register(HALVED, halved)
AttentionMaskInterface.register(HALVED, sdpa_mask)


def rounded_model(model: Any, bits: int) -> Any:
    """A copy of a causal model of transformers, its matrices in 8 or 4 bits (the head in 8), what they are multiplied
    with in 8 bits, and its embedding, keys and values in float16."""
    model = copy.deepcopy(model)
    model.set_attn_implementation(HALVED)
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            own = 8 if module is head else bits
            module.weight.data = eight_bits(module.weight.data, 64) if own == 8 else four_bits(module.weight.data)
            group = 64 if own == 8 else 32
            module.register_forward_pre_hook(lambda _, inputs, group=group: (activations(inputs[0], group),))
    embedding = model.get_input_embeddings().weight
    embedding.data = embedding.data.half().float()
    return model


def by_groups(x: Tensor, group: int) -> Tensor:
    """The last dimension cut into groups, zeros behind."""
    x = F.pad(x, (0, -x.shape[-1] % group))
    return x.view(*x.shape[:-1], -1, group)


def activations(x: Tensor, group: int) -> Tensor:
    """127 steps on each side of nothing, the last of them the group's largest value."""
    groups = by_groups(x, group)
    scales = (groups.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    return ((groups / scales).round() * scales).flatten(-2)[..., : x.shape[-1]]


def eight_bits(weight: Tensor, group: int) -> Tensor:
    """The same for weights, with scales in float16."""
    groups = by_groups(weight, group)
    scales = (groups.abs().amax(-1, keepdim=True) / 127).half().float().clamp(min=1e-30)
    return ((groups / scales).round() * scales).flatten(-2)[..., : weight.shape[-1]]


def four_bits(weight: Tensor) -> Tensor:
    """Levels −8 … 7 in groups of 32; of five float16 scales, the one whose levels come nearest to the weights.

    The scales put the weight that is largest without its sign on −8, −7.4, −6.8, −8.6 or 7.5.
    """
    groups = by_groups(weight, 32)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    on_grid, errors = [], []
    for place in (-8, -7.4, -6.8, -8.6, 7.5):
        scales = (largest / place).half().float()
        rounded = (groups / scales).nan_to_num(0, 0, 0).round().clamp(-8, 7) * scales
        on_grid.append(rounded)
        errors.append((rounded - groups).square().sum(-1))
    best = torch.stack(errors).argmin(0)[None, ..., None].expand(1, *groups.shape)
    return torch.stack(on_grid).gather(0, best)[0].flatten(-2)[..., : weight.shape[-1]]
