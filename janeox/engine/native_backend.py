"""The backend of the native kernels: float32, float16, bfloat16, 8 and 4 bits on a CPU, a whole step in one call.

Sixteen bits are bfloat16 for a model in bfloat16, with activations rounded likewise; otherwise float16: exact for the
series' files, eight times finer, and multiplied in float32.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig
from janeox.engine.backend import Backend, Row
from janeox.engine.native_library import (
    Cache,
    Layer,
    Matrix,
    Model,
    NativeEngine,
    Norm,
    NotCovered,
    Rows,
    native_library,
)
from janeox.engine.packing import BITS, LANES, SCALES, matrix_bits, packed_bits, packed_shapes, packed_tensors
from janeox.engine.pages import huge_pages
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX

PORTION = 256
"""Tokens of one call: enough to share the weights, and a Ctrl-C is heard between calls."""

CACHE_TYPES = {32: torch.float32, 16: torch.float16, 8: torch.int8}


@torch.no_grad()
def pack_model(model: GPTNeoX, bits: int) -> dict[str, Tensor]:
    """What `NativeBackend` takes, of a model whose weights get 32, 16, 8 or 4 bits.

    Raises:
        JaneoxError: weights that are not finite in so many bits.
    """
    tensors = dict(packed_tensors(model, bits))
    for tensor in tensors.values():
        huge_pages(tensor)
    return tensors


def why_not(config: GPTNeoXConfig) -> str | None:
    """Why this machine or the kernels cannot run such a model; None where they can."""
    try:
        NativeEngine(1)
        check_covered(config)
    except NotCovered as reason:
        return str(reason)
    return None


def check_covered(config: GPTNeoXConfig) -> None:
    """Raises NotCovered for a shape that the kernels do not know."""
    if config.head_dim % LANES:
        raise NotCovered(f"the head size {config.head_dim} is not a multiple of {LANES}")


class NativeBackend:
    """A `Backend` (engine/backend.py) on this machine's CPU. A text's logits do not depend on its company.

    Args:
        tensors: as `packed_tensors` yields them.
        num_slots: texts that the cache holds. Memory is taken as they grow, 16 tokens at a time.
        capacity: tokens of a slot.
        cache_bits: of keys and values: 32, 16 or 8; None for 32 where the weights have 32, else 16.
        threads, kernels: as for `NativeEngine`.

    Raises:
        NotCovered: with the reason.
        JaneoxError: tensors that do not fit the config, or no memory.
    """

    def __init__(
        self,
        config: GPTNeoXConfig,
        tensors: dict[str, Tensor],
        num_slots: int,
        capacity: int,
        threads: int | None = None,
        cache_bits: int | None = None,
        kernels: str = "",
    ):
        self._engine = NativeEngine(threads, kernels)
        self.kernels = self._engine.kernels
        check_covered(config)
        if not 1 <= capacity <= config.max_position_embeddings:
            raise JaneoxError(
                f"capacity {capacity}: must lie between 1 and the context, {config.max_position_embeddings}"
            )
        self.config, self.num_slots, self.capacity = config, num_slots, capacity
        self.tensors = tensors
        self._model = self._describe()
        if cache_bits is None:
            cache_bits = 32 if tensors["embed_out.weight"].dtype == torch.float32 else 16
        self._cache = self._allocate(cache_bits)

    @classmethod
    def from_model(
        cls, model: GPTNeoX, num_slots: int, capacity: int, bits: int = 16, **options: object
    ) -> "NativeBackend":
        """Packs a model's weights in 32, 16, 8 or 4 bits. `options` are those of the class.

        Raises:
            NotCovered, JaneoxError: as the class.
        """
        if bits not in BITS:
            raise JaneoxError(f"bits = {bits}: use 32, 16, 8 or 4")
        if native_library() is None:
            raise NotCovered("the native library was not built")
        return cls(model.config, pack_model(model, bits), num_slots, capacity, **options)  # type: ignore[arg-type]

    @property
    def bits(self) -> int:
        """Of the layers' matrices."""
        return packed_bits(self.tensors)

    @property
    def product_bits(self) -> int:
        """Of the numbers that are multiplied: float16 weights are widened, 4-bit ones count as bytes."""
        if self.tensors["embed_out.weight"].dtype == torch.bfloat16:
            return 16
        return 32 if self.bits >= 16 else 8

    def step_bytes(self) -> int:
        """Bytes of weights that a step reads, whatever its rows: all but the embedding."""
        return sum(tensor.nbytes for name, tensor in self.tensors.items() if "embed_in" not in name)

    @torch.no_grad()
    def refresh(self, model: GPTNeoX) -> None:
        """Takes a changed model's weights, in the same precision and place."""
        for name, tensor in packed_tensors(model, self.bits, self.tensors):
            if tensor is not self.tensors[name]:
                self.tensors[name].copy_(tensor)

    def forward(self, rows: Sequence[Row], every: bool = False) -> Tensor:
        """As `Backend.forward`.

        Raises:
            ValueError: a slot, position or id out of range, a slot twice, or a row without ids.
        """
        self._check(rows)
        logits = torch.empty(sum(len(row.ids) for row in rows) if every else len(rows), self._stride)
        done = 0
        for portion, wanted in _portions(rows, every):
            self._step(portion, wanted, logits[done:])
            done += len(wanted)
        return logits[:, : self.config.vocab_size]

    def copy(self, source: int, target: int, length: int) -> None:
        """As `Backend.copy`."""
        blocks = -(-length // LANES)
        for tensor in self._keys_values:
            tensor[target, :, :, :blocks] = tensor[source, :, :, :blocks]

    def _check(self, rows: Sequence[Row]) -> None:
        if len({row.slot for row in rows}) < len(rows):
            raise ValueError("a slot stands twice in one call")
        for row in rows:
            end = row.start + len(row.ids)
            if not (0 <= row.slot < self.num_slots and 0 <= row.start < end <= self.capacity):
                raise ValueError(f"slot {row.slot}, positions {row.start} to {end}: out of range")
            if not 0 <= min(row.ids) <= max(row.ids) < self.config.vocab_size:
                raise ValueError(f"slot {row.slot}: an id lies outside the vocabulary of {self.config.vocab_size}")

    def _step(self, rows: list[Row], wanted: list[int], logits: Tensor) -> None:
        columns = [[row.slot for row in rows], [row.start for row in rows], [len(row.ids) for row in rows]]
        lists = [[id for row in rows for id in row.ids], *columns, wanted]
        ids, slots, starts, counts, places = (torch.tensor(values, dtype=torch.int32) for values in lists)
        table = Rows(
            *(tensor.data_ptr() for tensor in (ids, slots, starts, counts)),
            len(rows),
            len(ids),
            places.data_ptr(),
            len(places),
        )
        references = [ctypes.byref(part) for part in (self._model, self._cache, table)]
        if not self._engine.library.janeox_forward(self._engine.handle, *references, logits.data_ptr()):
            raise MemoryError(f"no memory for a step of {len(ids)} tokens")

    def _describe(self) -> ctypes.Structure:
        """The C structure of the model; the tensors that it points to are kept by this object."""
        c = self.config
        layers = (Layer * c.num_hidden_layers)()
        for number, layer in enumerate(layers):
            for norm in ("input_layernorm", "post_attention_layernorm"):
                setattr(layer, norm, self._norm(f"gpt_neox.layers.{number}.{norm}", c.hidden_size))
            rows = (3 * c.hidden_size, c.hidden_size, c.intermediate_size, c.hidden_size)
            columns = (c.hidden_size, c.hidden_size, c.hidden_size, c.intermediate_size)
            names = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
            for name, N, K in zip(names, rows, columns, strict=True):
                matrix = self._matrix(f"gpt_neox.layers.{number}.{name}", N, K)
                setattr(layer, name.partition(".")[2], matrix)
        exponents = torch.arange(0, c.rotary_dim, 2).float() / max(c.rotary_dim, 1)
        inv_freq = 1.0 / (c.rotary_emb_base**exponents) / c.rope_scaling_factor
        angles = torch.arange(self.capacity).float()[:, None] * inv_freq  # (capacity, R/2)
        self._rotary = angles.cos().contiguous(), angles.sin().contiguous()
        embedding = self._tensor("gpt_neox.embed_in.weight", (c.vocab_size, c.hidden_size))
        head = self._matrix("embed_out", c.vocab_size, c.hidden_size)
        self._stride = head.panels * LANES
        self._layers = layers
        return Model(
            layers,
            embedding.data_ptr(),
            *(table.data_ptr() for table in self._rotary),
            self._norm("gpt_neox.final_layer_norm", c.hidden_size),
            head,
            c.num_hidden_layers,
            c.hidden_size,
            c.num_attention_heads,
            c.head_dim,
            len(inv_freq) * 2,
            embedding.dtype == torch.float16,
            c.use_parallel_residual,
            c.hidden_act != "gelu",
            c.layer_norm_eps,
        )

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape != shape or not tensor.is_contiguous():
            found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise JaneoxError(f"packed weights: {name!r} is {found}, config.json asks for {shape}")
        return tensor

    def _norm(self, name: str, size: int) -> ctypes.Structure:
        return Norm(*(self._tensor(f"{name}.{part}", (size,)).data_ptr() for part in ("weight", "bias")))

    def _matrix(self, name: str, rows: int, columns: int) -> ctypes.Structure:
        """Any of the precisions, as `pack` made it."""
        bits = matrix_bits(self.tensors, f"{name}.weight")
        shape, scales_shape = packed_shapes(rows, columns, bits, self.tensors[f"{name}.weight"].dtype)
        weight = self._tensor(f"{name}.weight", shape)
        scales = self._tensor(f"{name}.weight{SCALES}", scales_shape) if bits < 16 else None
        bias = self._tensor(f"{name}.bias", (shape[0] * LANES,)) if f"{name}.bias" in self.tensors else None
        pointers = (None if tensor is None else tensor.data_ptr() for tensor in (weight, scales, bias))
        columns = weight.numel() * (2 if bits == 4 else 1) // (shape[0] * LANES)
        return Matrix(*pointers, shape[0], columns, bits, weight.dtype == torch.bfloat16)

    def _allocate(self, bits: int) -> ctypes.Structure:
        """The cache. Memory that was never written takes no place, so that only used positions count."""
        if bits not in CACHE_TYPES:
            raise JaneoxError(f"cache_bits = {bits}: use 32, 16 or 8")
        c, blocks = self.config, -(-self.capacity // LANES)
        place = (self.num_slots, c.num_hidden_layers, c.num_attention_heads, blocks)
        try:
            keys, values = (torch.empty(*place, c.head_dim, LANES, dtype=CACHE_TYPES[bits]) for _ in range(2))
            scales = [torch.empty(*place, LANES) for _ in range(2)] if bits == 8 else []
        except RuntimeError as error:
            raise JaneoxError(
                f"no memory for a cache of {self.num_slots} texts of {self.capacity} tokens; ask for less"
            ) from error
        self._keys_values = [keys, values, *scales]
        pointers = [tensor.data_ptr() for tensor in self._keys_values] + [None] * (4 - len(self._keys_values))
        return Cache(*pointers, blocks, bits)


@contextmanager
def one_torch_thread(backend: Backend) -> Iterator[None]:
    """While the native kernels compute, torch does only what is small between their calls. Its threads would go on
    looking for work in a loop for a while each time, on cores that the kernels' threads need."""
    threads = torch.get_num_threads()
    if isinstance(backend, NativeBackend):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if isinstance(backend, NativeBackend):
            torch.set_num_threads(threads)


def _portions(rows: Sequence[Row], every: bool) -> Iterator[tuple[list[Row], list[int]]]:
    """Rows of at most `PORTION` tokens in all, and which of their tokens (places end to end) give logits, in order."""
    portion: list[Row] = []
    wanted: list[int] = []
    room = PORTION
    for row in rows:
        done = 0
        while done < len(row.ids):
            part = row.ids[done : done + room]
            portion.append(Row(row.slot, row.start + done, part))
            done += len(part)
            end = PORTION - room + len(part)
            if every:
                wanted += range(end - len(part), end)
            elif done == len(row.ids):
                wanted.append(end - 1)
            room -= len(part)
            if room == 0:
                yield portion, wanted
                portion, wanted, room = [], [], PORTION
    if portion:
        yield portion, wanted
