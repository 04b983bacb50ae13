"""Guesses at what comes next, from what followed the same tokens earlier in the text.

The engine checks a guess in the pass that it makes anyway and keeps what it would have chosen itself, so a guess only
changes the speed. Where guesses fail they are made ever more rarely.
"""

from collections.abc import Sequence

GRAM = 3  # tokens that must be the same
LONGEST_PAUSE = 64  # tokens without a guess, after many that failed


class PromptLookup:
    """Guesses of up to `num_tokens` for a text that begins with `prompt`; with 0, none and no work."""

    def __init__(self, prompt: Sequence[int], num_tokens: int):
        self.num_tokens = num_tokens
        self._ids: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}  # a gram → the place after its last occurrence but this one
        self._current: tuple[int, ...] = ()
        self._pause, self._wait, self._length = 1, 0, num_tokens
        for id in prompt:
            self.push(id)

    def push(self, id: int) -> None:
        """The text goes on with `id`."""
        if not self.num_tokens:
            return
        if len(self._current) == GRAM:
            self._followed[self._current] = len(self._ids)
        self._ids.append(id)
        self._current = tuple(self._ids[-GRAM:])
        self._wait = max(0, self._wait - 1)

    def guess(self) -> list[int]:
        """What may come next; empty where nothing is known, or guessing has not paid lately."""
        place = None if self._wait else self._followed.get(self._current)
        return [] if place is None else self._ids[place : place + self._length]

    def learn(self, guessed: int, accepted: int) -> None:
        """Takes note of how many of the guessed tokens were right."""
        if not guessed:
            return
        if accepted * 2 < guessed:
            self._length = max(1, accepted + 1)
        else:
            self._length = min(self.num_tokens, 2 * self._length)
        self._pause = 1 if accepted else min(LONGEST_PAUSE, 2 * self._pause)
        self._wait = 0 if accepted else self._pause
