"""Text of evaluation sets, or of the validation split, in training documents."""

import glob
import gzip
import json
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np

from janeox.corpus.near import folded, letters, only_letters, window_hashes
from janeox.errors import JaneoxError

LENGTHS = (30, 25, 20, 16, 13)
"""Letters of the runs that are compared: the longest that fits a text of the evaluation set. 30 letters in a row hardly
ever agree by chance. Of shorter texts only questions are looked for (nearly half of JCommonsenseQA's are that short),
as a whole sentence or line, or, with a question mark and `ANYWHERE` letters, behind any other words too."""
ANYWHERE = 5
HELD_OUT = 200
"""Letters of the runs of validation documents that are looked for."""
HELD_OUT_STEP = 50
"""Letters between two such runs: whatever shares 249 letters with a validation document is found."""
_QUESTION_MARK = re.compile("[?？]")
_SENTENCE_EDGE = re.compile(r"[\n。!?「」『』():\[\]【】]")  # in folded text
QUESTION_KEYS = ("question", "Question", "query")
"""Keys of a JSON object whose text is a question even without a question mark."""


class Runs:
    """A set of runs of letters, by their hashes.

    Args:
        hashes: by length of the run, uint64, sorted.
        questions: letters of questions that are shorter than any run.
    """

    def __init__(self, hashes: dict[int, np.ndarray], questions: Set[str] = frozenset()):
        self._questions = questions
        self._hashes = {length: found for length, found in hashes.items() if len(found)}
        self._maybe = np.zeros(1 << 22, bool)  # most runs are told from its 22 bits alone
        for found in self._hashes.values():
            self._maybe[found >> np.uint64(42)] = True

    def touch(self, text: str) -> bool:
        """Whether the text holds one of the runs or of the short questions."""
        text = folded(text)
        if self._questions and self._asks(text):
            return True
        compared = only_letters(text)
        for length, known in self._hashes.items():
            runs = window_hashes(compared, length)
            runs = runs[self._maybe[runs >> np.uint64(42)]]
            places = np.searchsorted(known, runs).clip(max=len(known) - 1)
            if (known[places] == runs).any():
                return True
        return False

    def _asks(self, text: str) -> bool:
        longest = 3 * LENGTHS[-1]  # spaces and marks within are passed over
        joined: list[str] = []  # the letters from each edge on, while they are few: a question may have edges within
        for part in _SENTENCE_EDGE.split(text):
            if len(part) > longest:
                joined = []
            elif added := only_letters(part):
                joined = [whole + added for whole in (*joined, "") if len(whole) < LENGTHS[-1]]
                if not self._questions.isdisjoint(joined):
                    return True
        for mark in _QUESTION_MARK.finditer(text):
            before = only_letters(text[max(0, mark.start() - longest) : mark.start()])
            if any(before[-count:] in self._questions for count in range(ANYWHERE, min(LENGTHS[-1], len(before) + 1))):
                return True
        return False


def evaluation_runs(patterns: tuple[str, ...]) -> Runs:
    """The runs and short questions of evaluation files: of every string of .json, .jsonl and .json.gz, of every line of
    others.

    Raises:
        JaneoxError: a pattern matches no file, or one cannot be read.
    """
    hashes: dict[int, list[np.ndarray]] = {length: [] for length in LENGTHS}
    questions = set()
    for file in evaluation_files(patterns):
        for text, is_question in _strings(file):
            compared = letters(text)
            length = next((length for length in LENGTHS if length <= len(compared)), None)
            if length:
                hashes[length].append(window_hashes(compared, length))
            elif compared and (is_question or _QUESTION_MARK.fullmatch(text.rstrip()[-1])):
                questions.add(compared)
    return Runs({length: np.unique(np.concatenate(found)) for length, found in hashes.items() if found}, questions)


def evaluation_files(patterns: tuple[str, ...]) -> list[Path]:
    """The files that the patterns match.

    Raises:
        JaneoxError: a pattern matches no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        files = [path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if path.is_file()]
        if not files:
            raise JaneoxError(f"corpus.decontaminate: {pattern!r} matches no file; give a file or a glob")
        found += files
    return found


def held_out_hashes(text: str) -> np.ndarray:
    """Hashes of the runs by which text of a validation document is found elsewhere."""
    return window_hashes(letters(text), HELD_OUT)[::HELD_OUT_STEP]


def _strings(file: Path) -> Iterator[tuple[str, bool]]:
    """The texts of an evaluation file, and whether their key calls them questions."""
    try:
        raw = file.read_bytes()
        content = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise JaneoxError(f"{file}: cannot be read as an evaluation file ({error})") from error
    rows = [line for line in content.split("\n") if line.strip()]
    if not rows or rows[0].lstrip()[0] not in "{[":
        yield from ((row, False) for row in rows)
        return
    try:
        yield from _within(json.loads(content))  # one JSON value
    except ValueError:
        for number, row in enumerate(rows, 1):
            try:
                yield from _within(json.loads(row))
            except ValueError as error:
                raise JaneoxError(f"{file}: row {number} is not JSON ({error})") from error


def _within(value: Any, key: str = "") -> Iterator[tuple[str, bool]]:
    if isinstance(value, str):
        yield value, key in QUESTION_KEYS
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _within(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _within(part, key)
