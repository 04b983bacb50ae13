"""Counts of documents: what came, what stays, what a rule dropped."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "valid")
EXAMPLES = 5
"""Dropped documents named in the report, per rule."""


@dataclass
class Tally:
    documents: int = 0
    chars: int = 0
    bytes: int = 0

    def add(self, text: str) -> int:
        """Counts a text; returns its UTF-8 bytes."""
        num_bytes = len(text.encode("utf-8"))
        self.documents += 1
        self.chars += len(text)
        self.bytes += num_bytes
        return num_bytes


@dataclass
class Dropped(Tally):
    """What one rule dropped."""

    examples: list[str] = field(default_factory=list)

    def add_example(self, text: str, where: str) -> None:
        self.add(text)
        if len(self.examples) < EXAMPLES:
            self.examples.append(where)


def dropped_by_rule() -> defaultdict[str, Dropped]:
    return defaultdict(Dropped)


def summed(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One report out of several of the same form: numbers are added, lists joined."""
    total: dict[str, Any] = {}
    for report in reports:
        for key, value in report.items():
            if isinstance(value, dict):
                total[key] = summed([total.get(key, {}), value])
            else:
                total[key] = total[key] + value if key in total else value
    return total


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b of a text's UTF-8. They tell duplicates and choose the split.

    Among 6 billion documents one is expected to be taken for a duplicate that is none.
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")
