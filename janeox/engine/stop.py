"""Stop strings, found in a stream of text wherever they are cut."""


class StopScanner:
    """Cuts a stream of text before the first stop string, holding back only what may still become one."""

    def __init__(self, stop: tuple[str, ...]):
        self.stop = stop
        self.stopped = False
        self._held = ""

    def push(self, text: str) -> str:
        """Text that is safe to show. After a stop string `stopped` is true and nothing more comes."""
        if self.stopped:
            return ""
        self._held += text
        places = [place for place in (self._held.find(stop) for stop in self.stop) if place >= 0]
        if places:
            self.stopped = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = max((self._overlap(stop) for stop in self.stop), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        return next(n for n in range(min(len(stop) - 1, len(self._held)), -1, -1) if self._held.endswith(stop[:n]))

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held
