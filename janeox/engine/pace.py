"""How many tokens to guess, from how many guesses were right: where they fail they are made ever more rarely."""

LONGEST_PAUSE = 64  # tokens without a guess, after many that failed


class Pace:
    """Up to `num_tokens` guesses at a time; 0 never guesses."""

    def __init__(self, num_tokens: int):
        self.num_tokens = num_tokens
        self._pause, self._wait, self._length = 1, 0, num_tokens

    @property
    def length(self) -> int:
        """How many to guess now."""
        return 0 if self._wait else self._length

    def push(self) -> None:
        """The text has one more token."""
        self._wait = max(0, self._wait - 1)

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
