"""Guesses at what comes next, from what followed the same tokens earlier in the text.

The engine checks a guess in the pass that it makes anyway and keeps what it would have chosen itself, so a guess only
changes the speed.
"""

from collections.abc import Sequence

GRAM = 3  # tokens that must be the same


class PromptLookup:
    """What a text that begins with `prompt` holds, as far as guesses need it."""

    def __init__(self, prompt: Sequence[int]):
        self._ids: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}  # a gram → the place after its last occurrence but this one
        self._current: tuple[int, ...] = ()
        for id in prompt:
            self.push(id)

    def push(self, id: int) -> None:
        """The text goes on with `id`."""
        if len(self._current) == GRAM:
            self._followed[self._current] = len(self._ids)
        self._ids.append(id)
        self._current = tuple(self._ids[-GRAM:])

    def guess(self, length: int) -> list[int]:
        """Up to `length` tokens that may come next; empty where nothing is known."""
        place = self._followed.get(self._current)
        return [] if place is None else self._ids[place : place + length]
