"""What a backend answers: the logits after these ids at these positions. Everything else is the engine's."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from janeox.config import GPTNeoXConfig


class Row(NamedTuple):
    """New ids of one text."""

    slot: int
    start: int
    """How many tokens of the slot stay; `ids` follow them, and what it held past them is forgotten."""
    ids: Sequence[int]


class Backend(Protocol):
    """A model with a KV cache of `num_slots` texts.

    A backend need not check its arguments: slots of one call differ, and `start + len(ids) <= capacity`.
    """

    config: GPTNeoXConfig
    num_slots: int
    """Texts that it holds at once."""
    capacity: int
    """Tokens that a slot can hold, at most the model's context."""

    def forward(self, rows: Sequence[Row], every: bool = False) -> Tensor:
        """The float32 logits of what comes next.

        Args:
            rows: at least one; they may have different numbers of ids, at least one each.
            every: after each of the ids, not only after the last of each row.

        Returns:
            (len(rows), V), or with `every` (sum of len(row.ids), V), row after row.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a slot into another, so that texts share a beginning."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """One whose steps can be queued on a device, so that the next begins before the host knows what was chosen."""

    device: torch.device
    ahead: int
    """How many tokens of a text are written before the host looks at them; 1 for none."""

    def decode(self, slots: Tensor, positions: Tensor, ids: Tensor) -> Tensor:
        """As `forward`, of one more id for each slot; the arguments (B,) are on the device, and nothing waits for it.

        Positions may run past `capacity`; such a row's logits mean nothing, and no other row is touched.

        Returns:
            (B, V) float32, good until the next call.
        """
        ...
