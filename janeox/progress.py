"""One progress line with the time left: redrawn in place on a terminal, a plain line now and then in a log file."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts finished work. `total` is None where it is not known beforehand."""

    def __init__(self, what: str, total: float | None, unit: str, start: float, shown: bool):
        self.what, self.total, self.unit, self.start = what, total, unit, start
        self.done = start
        self.note = ""
        self.started = time.monotonic()
        self._drawn = self.started
        self._terminal = sys.stderr.isatty()
        self._shown = shown

    def advance(self, amount: float, note: str | None = None) -> None:
        """Adds `amount` finished units; `note` stands at the end of the line until the next one."""
        self.done += amount
        self.note = self.note if note is None else note
        now = time.monotonic()
        if self._shown and now - self._drawn >= (0.2 if self._terminal else SECONDS_BETWEEN_LINES):
            self._drawn = now
            self._draw()

    def line(self) -> str:
        rate = (self.done - self.start) / max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.what}: {self.done:,.0f}"]
        if self.total:
            parts[0] += f"/{self.total:,.0f} {self.unit} ({min(1.0, self.done / self.total):.0%})"
        else:
            parts[0] += f" {self.unit}"
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2f}/s")
        if self.total and rate > 0:
            parts.append(f"{clock(max(0.0, self.total - self.done) / rate)} left")
        return ", ".join(parts + ([self.note] if self.note else []))

    def _draw(self) -> None:
        if self._terminal:  # in one row, since only a row can be drawn again
            line = self.line()[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(self.line(), file=sys.stderr, flush=True)

    def print(self, text: str) -> None:
        """Prints a line that stays, above the progress line."""
        if self._shown:
            self.clear()
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipes the line, so that something else can be printed."""
        if self._terminal and self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


@contextmanager
def progress(
    what: str, total: float | None = None, unit: str = "", start: float = 0.0, shown: bool = True
) -> Iterator[Progress]:
    """`with progress("reading", total=size, unit="bytes") as bar: … bar.advance(n)`; writes to stderr.

    `start` is what was finished before; it does not count towards the speed. Nothing is written unless `shown`.
    """
    bar = Progress(what, total, unit, start, shown)
    try:
        yield bar
    finally:
        bar.clear()


def clock(seconds: float) -> str:
    """75.2 → '1:15', 5000 → '1:23:20', 200000 → '2 days 7:33:20'."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    text = f"{hour}:{minute:02d}:{second:02d}" if hour or days else f"{minute}:{second:02d}"
    return f"{days} day{'s' * (days > 1)} {text}" if days else text
