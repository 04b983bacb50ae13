"""GPT-NeoX: the whole model, its KV cache, and how it is opened and saved.

Parameter names are those of the checkpoint files, so nothing is ever converted.
Shapes in comments: B batch, T tokens of this call, S tokens seen so far (cached ones included), C hidden, H heads,
D head size, R rotated part of D, V vocabulary.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from janeox.atomic import new_folder
from janeox.attention import (
    Documents,
    RotatedHeads,
    attention_mask,
    causal_attention,
    document_attention,
    native_attention,
)
from janeox.branches import Branches, branched_attention
from janeox.cache import CacheRows, DecodeRows
from janeox.config import GPTNeoXConfig
from janeox.errors import JaneoxError
from janeox.products import linear
from janeox.weights import read_json, read_weights, write_weights

Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""One layer's `CacheRows.extend`: new keys and values → all of them."""

Attend = Tensor | BlockMask | Branches | Documents | None
"""Which token sees which; None: all before it."""

GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_fast": "tanh", "gelu_pytorch_tanh": "tanh"}


class Linear(nn.Linear):
    """Without PyTorch's own first weights: ours come from a file or from `GPTNeoX.initialize`."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """Likewise."""

    def reset_parameters(self) -> None:
        pass


class Attention(nn.Module):
    def __init__(self, config: GPTNeoXConfig):
        super().__init__()
        self.head_dim = config.head_dim
        self.query_key_value = Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Attend, extend: Extend | None) -> Tensor:
        B, T, _ = x.shape
        qkv = self.query_key_value(x).view(B, T, -1, 3, self.head_dim)  # per head q, k, v: (B, T, H, 3, D)
        if extend is None and (mask is None or isinstance(mask, Documents)):
            native = native_attention(qkv, rotary, mask)  # (B, T, H, D)
            if native is not None:
                return self.dense(native.flatten(2))
        q, k, v = RotatedHeads.apply(qkv, *rotary)  # each (B, H, T, D)
        if extend is not None:
            k, v = extend(k, v)  # (B, H, S, D)
        if isinstance(mask, BlockMask):
            x = flex_attention(q, k, v, block_mask=mask)
        elif isinstance(mask, Branches):
            x = branched_attention(q, k, v, mask)
        elif isinstance(mask, Documents):
            x = document_attention(q, k, v, mask)
        elif mask is None:
            x = causal_attention(q, k, v)
        else:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.dense(x.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config: GPTNeoXConfig):
        super().__init__()
        self.dense_h_to_4h = Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = Linear(config.intermediate_size, config.hidden_size)
        self.approximate = GELU[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x), approximate=self.approximate))


class Layer(nn.Module):
    def __init__(self, config: GPTNeoXConfig):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.mlp = MLP(config)
        self.parallel = config.use_parallel_residual

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Attend, extend: Extend | None) -> Tensor:
        attended = self.attention(self.input_layernorm(x), rotary, mask, extend)
        if self.parallel:
            return x + attended + self.mlp(self.post_attention_layernorm(x))
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """All but the head; in the files its names start with `gpt_neox.`."""

    def __init__(self, config: GPTNeoXConfig):
        super().__init__()
        self.embed_in = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class GPTNeoX(nn.Module):
    """The language model.

    Open one with `from_pretrained`; make a new one with `GPTNeoX(config)` and `initialize`.
    """

    def __init__(self, config: GPTNeoXConfig):
        super().__init__()
        self.config = config
        self.gpt_neox = Trunk(config)
        self.embed_out = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.embed_out.weight = self.gpt_neox.embed_in.weight

    @property
    def device(self) -> torch.device:
        return self.embed_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_out.weight.dtype

    def forward(
        self, ids: Tensor, *, mask: Tensor | None = None, cache: CacheRows | DecodeRows | None = None
    ) -> Tensor:
        """Logits of the next token after each position.

        Args:
            ids: (B, T) token ids; with a cache, those that follow the cached ones.
            mask: (B, T) bool, False for padding, which may stand on either side; not with a cache, where what stands
                behind a row's own tokens is simply written over later.
            cache: filled in place.

        Returns:
            (B, T, V) logits in the model's dtype. Those at padded positions mean nothing.
        """
        return self.embed_out(self.hidden(ids, mask=mask, cache=cache))

    def hidden(
        self,
        ids: Tensor,
        *,
        mask: Tensor | None = None,
        cache: CacheRows | DecodeRows | None = None,
        documents: Tensor | None = None,
        branches: Branches | None = None,
    ) -> Tensor:
        """As `forward`, but the normed hidden states (B, T, C) that the head reads.

        Args:
            documents: (B, T) for rows that hold several documents, in place of `mask` and `cache`: the number of the
                document of each token, the same over neighbouring tokens. Each document is then read as if it were
                alone: its tokens attend to their own document only, and their positions begin at 0.
            branches: in place of all these, for texts that share their beginnings; `ids` are its own.
        """
        attend: Attend
        if cache is not None:
            positions, attend = cache.positions, cache.mask  # (B, T)
        elif documents is not None:
            packed = Documents(documents)
            positions, attend = packed.positions, packed.blocks() if documents.is_cuda else packed
        elif branches is not None:
            positions, attend = branches.positions, branches
        elif mask is not None:
            positions, attend = (mask.long().cumsum(1) - 1).clamp(min=0), attention_mask(mask)
        else:
            positions, attend = torch.arange(ids.shape[1], device=ids.device)[None], None  # (1, T)
        rotary = self._rotary(positions)
        x = self.gpt_neox.embed_in(ids).to(self._compute_dtype)  # (B, T, C)
        for index, layer in enumerate(self.gpt_neox.layers):
            # Layers get no number of their own: to torch.compile they are all the same.
            x = layer(x, rotary, attend, None if cache is None else partial(cache.extend, index))
        return self.gpt_neox.final_layer_norm(x)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin (B, 1, T, R) for positions (B, T), computed in float32 from the config, never from a file."""
        c = self.config
        exponents = torch.arange(0, c.rotary_dim, 2, device=positions.device).float() / max(c.rotary_dim, 1)
        inv_freq = 1.0 / (c.rotary_emb_base**exponents) / c.rope_scaling_factor  # (R/2,)
        angles = (positions[..., None].float() * inv_freq).repeat(1, 1, 2)[:, None]  # (B, 1, T, R)
        return angles.cos().to(self._compute_dtype), angles.sin().to(self._compute_dtype)

    @property
    def _compute_dtype(self) -> torch.dtype:
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype

    @torch.no_grad()
    def initialize(
        self,
        generator: torch.Generator,
        scheme: str = "gpt2",
        part: Callable[[Tensor, Tensor], Tensor] = lambda values, parameter: values,
    ) -> "GPTNeoX":
        """Random weights: normal, biases 0, norms 1. Their spread, by `scheme`:

        gpt2: `initializer_range`, and 1/√(2·layers) of it in the two matrices of each layer that write into the
        residual stream, so that it does not grow with depth (GPT-2, section 2.3). hf: `initializer_range` in all, as
        transformers does. neox: √(2/5C) ("small init", arXiv 1910.05895), and 2/(L·√C) in those that write into the
        residual stream ("wang init"), as GPT-NeoX-20B and Pythia (arXiv 2204.06745).

        Args:
            part: (whole values, parameter) → what of the values is this process's to keep, where it holds a part only.
        """
        C, L = self.config.hidden_size, self.config.num_hidden_layers
        std = self.config.initializer_range
        inside, into_residual = {
            "gpt2": (std, std / math.sqrt(2 * L)),
            "hf": (std, std),
            "neox": (math.sqrt(2 / (5 * C)), 2 / (L * math.sqrt(C))),
        }[scheme]
        for name, parameter in self.named_parameters():
            values = torch.empty(parameter.shape, dtype=parameter.dtype)
            if parameter.ndim < 2:
                values.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                writes = name.endswith(("dense.weight", "dense_4h_to_h.weight"))
                values.normal_(0.0, into_residual if writes else inside, generator=generator)
            parameter.copy_(part(values, parameter))
        return self

    @classmethod
    def from_pretrained(cls, folder: Path | str, dtype: torch.dtype | None = None) -> "GPTNeoX":
        """Opens a Hugging Face folder on the CPU, memory-mapped; `dtype` None keeps the stored one.

        Raises:
            JaneoxError: no config or weights, another architecture, or tensors that do not fit the config.
        """
        folder = Path(folder)
        config = read_config(folder)
        tensors = read_weights(folder)
        with torch.device("meta"):
            model = cls(config)
        if config.tie_word_embeddings and "gpt_neox.embed_in.weight" in tensors:
            tensors["embed_out.weight"] = tensors["gpt_neox.embed_in.weight"]
        check_tensors(tensors, model.state_dict(), folder)
        dtype = dtype or tensors["embed_out.weight"].dtype
        model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
        if config.tie_word_embeddings:
            model.embed_out.weight = model.gpt_neox.embed_in.weight
        return model.requires_grad_(False).eval()

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Writes `config.json`, `generation_config.json` and safetensors that transformers 4 and 5 open as they are.

        The folder appears whole or not at all; one of that name is replaced.

        Raises:
            JaneoxError: the disk is full or cannot be written.
        """
        with new_folder(folder) as new:
            self.write_files(new, dtype)

    def write_files(
        self, folder: Path, dtype: torch.dtype | None = None, weights: dict[str, Tensor] | None = None
    ) -> None:
        """The files of `save_pretrained`, into an existing folder; `weights` in place of the model's own."""
        dtype = dtype or self.dtype
        name = str(dtype).removeprefix("torch.")
        tensors = {key: tensor.detach().to(dtype) for key, tensor in (weights or self.state_dict()).items()}
        if self.config.tie_word_embeddings:
            del tensors["embed_out.weight"]
        write_weights(tensors, folder)
        generation = {"bos_token_id": self.config.bos_token_id, "eos_token_id": self.config.eos_token_id}
        for file, table in (("config.json", self.config.to_hf(name)), ("generation_config.json", generation)):
            (folder / file).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def read_config(folder: Path) -> GPTNeoXConfig:
    """The shape that a model folder's `config.json` gives.

    Raises:
        JaneoxError: there is none, or it is of another architecture.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise JaneoxError(f"{folder}: no config.json there, so it is not a model folder")
    return GPTNeoXConfig.from_hf(read_json(config_file), where=str(config_file))


def check_tensors(found: dict[str, Tensor], expected: dict[str, Any], folder: Path) -> None:
    """Raises JaneoxError, naming the first tensor that is missing, of the wrong shape, or not of this architecture."""
    missing = [name for name in expected if found.get(name) is None]
    if missing:
        raise JaneoxError(f"{folder}: {len(missing)} tensors are missing from the weights, first {missing[0]!r}")
    for name, tensor in found.items():
        if name not in expected:
            raise JaneoxError(f"{folder}: tensor {name!r} has no place in a GPT-NeoX of this config.json")
        if tensor.shape != expected[name].shape:
            raise JaneoxError(
                f"{folder}: {name!r} has shape {tuple(tensor.shape)}, config.json asks for "
                f"{tuple(expected[name].shape)}"
            )
