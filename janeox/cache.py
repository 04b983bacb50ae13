"""Keys and values of what a model has read, kept between forward passes.

Shapes in comments are those of model.py: L layers, B batch, H heads, T new tokens, S stored tokens, D head size.
"""

import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig


class KVCache:
    """Keys and values of the tokens seen so far: one text a slot, in memory reserved once.

    Args:
        capacity: the most tokens a slot can hold.
    """

    def __init__(self, config: GPTNeoXConfig, num_slots: int, capacity: int, dtype: torch.dtype, device: torch.device):
        # One place more than asked for, where padding may write. Zeros, because what a mask hides is still multiplied.
        shape = (config.num_hidden_layers, num_slots, config.num_attention_heads, capacity + 1, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)  # (L, slots, H, capacity + 1, D)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.num_slots, self.capacity = num_slots, capacity

    def rows(self, slots: list[int], starts: list[int], T: int) -> "CacheRows":
        """Where the next forward pass reads and writes: T tokens a row, behind the first `starts` of its slot."""
        return CacheRows(self, slots, starts, T)

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` tokens of a slot, into another."""
        for store in (self.keys, self.values):
            store[:, target, :, :length] = store[:, source, :, :length]


class CacheRows:
    """The slots of a cache that the rows of one forward pass use; see `KVCache.rows`.

    Attributes:
        positions: (B, T) of the new tokens.
        mask: (B, 1, T, S) bool, which stored tokens each new one sees; None for plain causality.
    """

    def __init__(self, cache: KVCache, slots: list[int], starts: list[int], T: int):
        self.cache, device = cache, cache.keys.device
        self.first = not any(starts)
        self.end = min(max(starts) + T, cache.capacity + 1)  # S
        start = torch.tensor(starts, device=device)
        self.positions = start[:, None] + torch.arange(T, device=device)
        self.places = self.positions.clamp(max=cache.capacity)
        self.index = torch.tensor(slots, device=device)
        adjacent = slots == list(range(slots[0], slots[0] + len(slots)))  # then reading them copies nothing
        self.slots = slice(slots[0], slots[0] + len(slots)) if adjacent else self.index
        plain = self.first or (T == 1 and min(starts) == max(starts))
        keys = torch.arange(self.end, device=device)
        self.mask = None if plain else (keys <= self.positions[..., None])[:, None]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one layer's new (B, H, T, D) in their places; returns all that the rows may see, (B, H, S, D).

        Among several processes, H may be some of the heads, and the dtype not that of the weights.
        """
        keys, values = self.cache.keys[layer, :, : k.shape[1]], self.cache.values[layer, :, : v.shape[1]]
        keys[self.index[:, None], :, self.places] = k.transpose(1, 2).to(keys.dtype)
        values[self.index[:, None], :, self.places] = v.transpose(1, 2).to(values.dtype)
        if self.first:
            return k, v
        return keys[self.slots, :, : self.end].to(k.dtype), values[self.slots, :, : self.end].to(v.dtype)


class DecodeRows:
    """As `CacheRows` for one new token a row, but nothing is asked of the host: shapes do not hang on the positions.

    Args:
        slots, positions: (B,) on the cache's device. A position outside the slot writes to the place for padding.
    """

    def __init__(self, cache: KVCache, slots: Tensor, positions: Tensor):
        self.cache, self.slots = cache, slots
        inside = (positions >= 0) & (positions < cache.capacity)
        self.places = torch.where(inside, positions, cache.capacity)
        self.positions = self.places[:, None]
        keys = torch.arange(cache.capacity + 1, device=slots.device)
        self.mask = (keys <= self.positions)[:, None, None]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `CacheRows.extend`, with every place of the slots."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.slots, :, self.places] = k[:, :, 0]
        values[self.slots, :, self.places] = v[:, :, 0]
        return keys[self.slots], values[self.slots]
