"""Which slots of a backend are free, and what each holds, so that a text may start from what another left there."""

from collections.abc import Sequence

from janeox.engine.backend import Backend, Row

SHORTEST = 16  # tokens that two texts must share for it to be worth anything


class Slots:
    """The slots of one backend."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self.free = list(range(backend.num_slots))
        """Those that nobody has; the first is the next to be given away."""
        self._held: list[list[int]] = [[] for _ in self.free]

    def take(self, prompt: Sequence[int]) -> tuple[int, int]:
        """A free slot, and how many tokens at the beginning of `prompt` it holds already (never all of them).

        A free slot that holds the longest beginning is taken as it is. If one in use holds it, it is copied.
        """
        shared, source = max((self._shared(slot, prompt), -slot) for slot in range(len(self._held)))
        source = -source
        if shared < SHORTEST:
            slot, shared = self.free[0], 0
        elif source in self.free:
            slot = source
        else:
            slot = self.free[0]
            self._backend.copy(source, slot, shared)
        self.free.remove(slot)
        self._held[slot] = list(prompt[:shared])
        return slot, shared

    def wrote(self, row: Row) -> None:
        """The backend has taken in a row."""
        held = self._held[row.slot]
        del held[row.start :]
        held.extend(row.ids)

    def release(self, slot: int) -> None:
        """Nobody has the slot any more. Empty ones are given away first, then those that were left longest ago."""
        if len(self._held[slot]) < SHORTEST:
            self.free.insert(0, slot)
        else:
            self.free.append(slot)

    def _shared(self, slot: int, prompt: Sequence[int]) -> int:
        held = self._held[slot]
        if held[:SHORTEST] != list(prompt[:SHORTEST]):
            return 0
        shared = next((n for n, pair in enumerate(zip(held, prompt, strict=False)) if pair[0] != pair[1]), None)
        return min(len(held) if shared is None else shared, len(prompt) - 1)
