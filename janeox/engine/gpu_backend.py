"""The backend for one GPU: a step is a CUDA graph of a few kernels a layer, and a pass over prompts has no padding."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from janeox.cache import KVCache
from janeox.engine.backend import Row
from janeox.model import GPTNeoX

AHEAD = 16  # tokens between two looks of the host: at 400 a second, a text comes in pieces of 40 ms
WIDTHS = 128  # what the kernels' tiles divide

Captured = tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]
"""A graph, the tensors it reads (slots, positions, ids), and the logits it writes."""


def why_not(model: GPTNeoX) -> str | None:
    """Why the kernels cannot run such a model; None where they can."""
    c = model.config
    if model.device.type != "cuda":
        return f"they run on an NVIDIA GPU, not on {model.device}"
    if importlib.util.find_spec("triton") is None:
        return "they need triton, which comes with torch for CUDA"
    if type(model.embed_out.weight).__name__ == "DTensor":  # by name: importing it takes half a second
        return "they read whole weights, and these are cut among processes"
    if c.hidden_size % WIDTHS or c.intermediate_size % WIDTHS or c.head_dim & (c.head_dim - 1):
        return f"widths must be multiples of {WIDTHS} and the head size a power of two"
    return None


class GpuBackend:
    """A `DeviceBackend` over a model's own weights, which may be `QuantisedLinear`.

    Args:
        model: of which `why_not` has nothing to say.
    """

    def __init__(self, model: GPTNeoX, num_slots: int, capacity: int):
        from janeox.engine import triton_kernels

        self._kernels = triton_kernels
        self.model, self.config, self.device, self.ahead = model, model.config, model.device, AHEAD
        self.num_slots, self.capacity = num_slots, min(capacity, model.config.max_position_embeddings)
        self.cache = KVCache(model.config, num_slots, self.capacity, model.dtype, model.device)
        c = model.config
        exponents = torch.arange(0, c.rotary_dim, 2, device=self.device).float() / max(c.rotary_dim, 1)
        inv_freq = 1.0 / (c.rotary_emb_base**exponents) / c.rope_scaling_factor  # (R/2,)
        angles = torch.arange(self.capacity + 1, device=self.device).float()[:, None] * inv_freq
        self._rotary = angles.cos(), angles.sin()
        self.graphs = Graphs(self._decode) if self.device.type == "cuda" else None

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row], every: bool = False) -> Tensor:
        """See `Backend`. The tokens of all rows go through the layers as one list; only attention knows the rows."""
        counts = [len(row.ids) for row in rows]
        ids = torch.tensor([id for row in rows for id in row.ids], device=self.device)
        slots = torch.tensor([row.slot for row in rows for _ in row.ids], device=self.device)
        places = [row.start + n for row in rows for n in range(len(row.ids))]
        positions = torch.tensor(places, device=self.device)
        if max(counts) == 1:
            return self.decode(slots, positions, ids).clone()

        stored = torch.arange(self.capacity, device=self.device)
        masks = [  # (T, end) where a row goes on from what its slot holds; else plain causality
            stored[: row.start + count] <= stored[row.start : row.start + count, None] if row.start else None
            for row, count in zip(rows, counts, strict=True)
        ]

        def attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            parts = []
            for row, seen, queries in zip(rows, masks, q.split(counts), strict=True):
                end = row.start + len(row.ids)
                k, v = keys[row.slot, None, :, :end], values[row.slot, None, :, :end]  # (1, H, end, D)
                queries = queries.transpose(0, 1)[None]  # (1, H, T, D)
                causal = seen is None and len(row.ids) > 1
                parts.append(F.scaled_dot_product_attention(queries, k, v, attn_mask=seen, is_causal=causal)[0])
            return torch.cat([part.transpose(0, 1).flatten(1) for part in parts])  # (N, H·D)

        hidden = self._layers(slots, positions, ids, attend)
        if not every:
            hidden = hidden[torch.tensor(counts, device=self.device).cumsum(0) - 1]
        return self._linear(self._normed(hidden), self.model.embed_out, dtype=torch.float32)

    @torch.inference_mode()
    def decode(self, slots: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
        """See `DeviceBackend`."""
        return self._decode(slots, positions, ids) if self.graphs is None else self.graphs(slots, positions, ids)

    def copy(self, source: int, target: int, length: int) -> None:
        """See `Backend`."""
        self.cache.copy(source, target, length)

    def step_bytes(self) -> int:
        """Bytes of weights that a step reads, whatever its rows: all but the embedding."""
        tensors = self.model.state_dict().items()
        return sum(tensor.nbytes for name, tensor in tensors if "embed_in" not in name)

    def _decode(self, slots: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
        def attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return self._kernels.attend(q, keys, values, slots, positions)

        hidden = self._layers(slots, positions, ids, attend)
        return self._linear(self._normed(hidden), self.model.embed_out, dtype=torch.float32)

    def _layers(
        self, slots: Tensor, positions: Tensor, ids: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Hidden states (N, C) of N tokens; `attend`: queries (N, H, D), a layer's keys and values → (N, C)."""
        kernels, trunk = self._kernels, self.model.gpt_neox
        x = F.embedding(ids, trunk.embed_in.weight)
        layers: Any = trunk.layers
        for layer, keys, values in zip(layers, self.cache.keys, self.cache.values, strict=True):
            qkv = self._linear(kernels.layer_norm(x, layer.input_layernorm), layer.attention.query_key_value)
            q = kernels.rotate_and_store(qkv, *self._rotary, slots, positions, keys, values)
            attended = self._linear(attend(q, keys, values), layer.attention.dense, residual=x)
            inner = kernels.layer_norm(x if layer.parallel else attended, layer.post_attention_layernorm)
            inner = self._linear(inner, layer.mlp.dense_h_to_4h, gelu=layer.mlp.approximate)
            x = self._linear(inner, layer.mlp.dense_4h_to_h, residual=attended)
        return x

    def _normed(self, x: Tensor) -> Tensor:
        return self._kernels.layer_norm(x, self.model.gpt_neox.final_layer_norm)

    def _linear(
        self,
        x: Tensor,
        module: Any,
        gelu: str = "",
        residual: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Few rows by our kernels, many by the library's."""
        if len(x) <= self._kernels.FEW:
            scales = getattr(module, "scales", None)
            return self._kernels.linear(x, module.weight, scales, module.bias, gelu, residual, dtype)
        y = module(x)
        if gelu:
            y = F.gelu(y, approximate=gelu)
        if residual is not None:
            y = y.add_(residual)
        return y.to(dtype or y.dtype)


class Graphs:
    """A step as CUDA graphs, one for each power of two of rows; rows that are not there have the position −1."""

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor]):
        self._step = step
        self._captured: dict[int, Captured] = {}
        self._pool: Any = None
        self.replays = 0

    def __call__(self, slots: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
        """The step's logits, good until the next call."""
        B = len(ids)
        size = 1 << (B - 1).bit_length()
        if size not in self._captured:
            self._captured[size] = self._capture(size, slots, positions, ids)
        graph, inputs, logits = self._captured[size]
        self._fill(inputs, slots, positions, ids)
        graph.replay()
        self.replays += 1
        return logits[:B]

    def _fill(self, inputs: list[Tensor], *values: Tensor) -> None:
        for buffer, value in zip(inputs, values, strict=True):
            buffer[: len(value)].copy_(value)
        inputs[1][len(values[1]) :].fill_(-1)

    def _capture(self, size: int, slots: Tensor, positions: Tensor, ids: Tensor) -> Captured:
        inputs = [torch.zeros(size, dtype=torch.long, device=ids.device) for _ in range(3)]
        self._fill(inputs, slots, positions, ids)
        # Before the capture, so that kernels are compiled and tuned. Writing the same keys twice changes nothing.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._step(*inputs)
        self._pool = graph.pool()
        return graph, inputs, logits
