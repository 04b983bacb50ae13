"""The backend that runs the model as it is, in torch, on a CPU or a GPU."""

import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from janeox.cache import DecodeRows, KVCache
from janeox.engine.backend import Row
from janeox.model import GPTNeoX

PADDED_TOKENS = 4096  # a forward pass; a longer row is one by itself


class TorchBackend:
    """`Backend` over a model's own forward pass. The weights are the model's: what trains it changes the answers."""

    def __init__(self, model: GPTNeoX, num_slots: int, capacity: int):
        self.model, self.config = model, model.config
        self.num_slots, self.capacity = num_slots, min(capacity, model.config.max_position_embeddings)
        self.device, self.ahead = model.device, 1
        # oneDNN, which torch has for GELU and bfloat16, compiles them for every shape that comes up and keeps 1,024 of
        # them, 40 KB each: many for a server, whose texts come in any lengths. It reads this at its first use.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
        self.cache = KVCache(model.config, num_slots, self.capacity, model.dtype, model.device)

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row], every: bool = False) -> Tensor:
        """See `Backend`."""
        logits: list[Tensor] = [torch.empty(0)] * len(rows)
        for group in groups(rows):
            for place, part in zip(group, self._padded([rows[place] for place in group], every), strict=True):
                logits[place] = part
        return torch.cat(logits)

    @torch.inference_mode()
    def decode(self, slots: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
        """See `DeviceBackend`."""
        return self.model(ids[:, None], cache=DecodeRows(self.cache, slots, positions))[:, 0].float()

    def copy(self, source: int, target: int, length: int) -> None:
        """See `Backend`."""
        self.cache.copy(source, target, length)

    def _padded(self, rows: list[Row], every: bool) -> list[Tensor]:
        """Logits of each row, (1 or its number of ids, V), from one forward pass with padding on the right."""
        lengths = [len(row.ids) for row in rows]
        T = max(lengths)
        ids = torch.zeros(len(rows), T, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.as_tensor(row.ids)
        cache = self.cache.rows([row.slot for row in rows], [row.start for row in rows], T)
        hidden = self.model.hidden(ids.to(self.model.device), cache=cache)  # (B, T, C)
        if every:
            wanted = torch.cat([hidden[place, :length] for place, length in enumerate(lengths)])
        else:
            wanted = hidden[range(len(rows)), [length - 1 for length in lengths]]
        return list(self.model.embed_out(wanted).float().split(lengths if every else 1))


def groups(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Which rows share a forward pass: those of like length, so that at most a third of it is padding."""
    ordered = sorted(range(len(rows)), key=lambda place: (len(rows[place].ids), rows[place].slot))
    group: list[int] = []
    for place in ordered:
        T = len(rows[place].ids)
        tokens = sum(len(rows[other].ids) for other in group) + T
        padded = T * (len(group) + 1)
        if group and (padded > PADDED_TOKENS or padded > 1.5 * tokens):
            yield group
            group = []
        group.append(place)
    yield group
