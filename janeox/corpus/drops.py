"""A bounded, unbiased sample of what each rule dropped, to be read: rules are tuned by looking."""

import hashlib
import heapq
import json
from pathlib import Path

FOLDER = "dropped"
SAMPLE = 50
"""Documents kept for reading, per rule, over all sources."""
CHARS = 2000
"""Of each, its beginning; so memory is at most 100,000 characters a rule."""


class Drops:
    """Of each rule, the documents whose places have the smallest hashes: a random sample, the same every time.

    Not the texts' hashes: one text that came a thousand times would then be all of the duplicates' sample.
    """

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[int, str, str, str]]] = {}

    def add(self, rule: str, source: str, where: str, text: str) -> None:
        """Tells of one dropped document; `text` is what cleaning left of it."""
        rank = hashlib.blake2b(f"{source} {where}".encode(errors="surrogateescape"), digest_size=8).digest()
        self._keep(rule, (-int.from_bytes(rank, "big"), source, where, text[:CHARS]))

    def save(self, file: Path) -> None:
        """Writes the sample down, for `merge`."""
        file.write_text(json.dumps(self._heaps, ensure_ascii=False), encoding="utf-8")

    def merge(self, file: Path) -> None:
        """Adds a sample that was saved: the result is that of one sample that saw all documents of both."""
        for rule, heap in json.loads(file.read_text(encoding="utf-8")).items():
            for entry in heap:
                self._keep(rule, tuple(entry))

    def _keep(self, rule: str, entry: tuple[int, str, str, str]) -> None:
        heap = self._heaps.setdefault(rule, [])
        if len(heap) < SAMPLE:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)

    def write(self, folder: Path) -> None:
        """Writes `folder/dropped/RULE.jsonl`, for each rule that dropped something, by source and place."""
        for rule, heap in sorted(self._heaps.items()):
            path = folder / FOLDER / f"{rule}.jsonl"
            path.parent.mkdir(exist_ok=True)
            rows = [{"source": s, "where": w, "text": t} for _, s, w, t in sorted(heap, key=lambda entry: entry[1:])]
            path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
