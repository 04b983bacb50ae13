"""metrics.jsonl: what a run measured, a row a line; readable while it grows, and after a kill."""

import json
import time
from pathlib import Path
from typing import Any

from janeox.errors import JaneoxError


class Metrics:
    """metrics.jsonl, cut back to the step that a run goes on from, and then appended to."""

    def __init__(self, file: Path, first: int):
        self.file = file
        kept = [row for row in read_metrics(file) if row["step"] <= first] if file.exists() else []
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def write(self, step: int, tokens: int, figures: dict[str, Any], seconds: float) -> None:
        timing = {"seconds": round(seconds, 3), "at": round(time.time())}
        row = {"step": step, "tokens": tokens, **figures, "time": timing}
        try:
            with open(self.file, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        except OSError as error:
            raise JaneoxError(
                f"{self.file}: cannot be written ({error.strerror}); free some space and go on"
            ) from error


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
        JaneoxError: the file is missing, or a line that is not the last is damaged.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise JaneoxError(f"{file}: cannot be read ({error.strerror})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise JaneoxError(f"{file}:{number}: not a JSON row ({error})") from error
    return rows
