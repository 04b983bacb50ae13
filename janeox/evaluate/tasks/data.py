"""Data of the tasks: local JSON files, checked for what a task reads of them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from janeox.errors import JaneoxError


def load(
    files: dict[str, list[str]], fields: list[str], data: str | None = None, **_others: Any
) -> dict[str, datasets.Dataset]:
    """The splits of a task, as lm-evaluation-harness asks for them (`custom_dataset` in a task's YAML).

    Args:
        files: split → patterns of its file's name; the first of them that is there is read.
        fields: what every record must have.
        data: folder of the files.

    Raises:
        JaneoxError: no folder or file, a file that is not JSON, or a record without one of the fields.
    """
    if data is None:
        raise JaneoxError("name the folder of the tasks' data: --data FOLDER")
    splits = {}
    for split, patterns in files.items():
        found = [path for pattern in patterns for path in sorted(Path(data).glob(pattern))]
        if not found:
            raise JaneoxError(f"{data}: holds no {' or '.join(patterns)}")
        if found[0].match(patterns[0]) is False:
            print(f"{split} of {patterns[0]}: from {found[0].name}", file=sys.stderr)
        splits[split] = datasets.Dataset.from_list(list(_records(found[0], fields)))
    return splits


def _records(path: Path, fields: list[str]) -> Iterator[dict[str, Any]]:
    """Of a file of JSON lines, or of one JSON object in SQuAD's form."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JaneoxError(f"{path}: cannot be read ({error})") from error
    number = 0
    for number, line in enumerate(filter(None, text.splitlines()), 1):
        try:
            record = json.loads(line)
            records = _squad(record) if "data" in record else [record]
        except (ValueError, TypeError, KeyError) as error:
            raise JaneoxError(f"{path}:{number}: not a JSON record of this task ({error!r})") from error
        for record in records:
            missing = [field for field in fields if field not in record]
            if missing:
                raise JaneoxError(f"{path}:{number}: a record has no field {missing[0]!r}; it has {', '.join(record)}")
            yield {field: record[field] for field in fields}
    if not number:
        raise JaneoxError(f"{path}: empty")


def _squad(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A record for each question."""
    for article in table["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {
                    "id": question["id"],
                    "title": article["title"],
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": {"text": [answer["text"] for answer in question["answers"]]},
                }
