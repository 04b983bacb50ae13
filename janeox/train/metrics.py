"""metrics.jsonl: what a run measured, a row a line; readable while it grows, and after a kill; others on request."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from janeox.atomic import new_file
from janeox.errors import JaneoxError


class Metrics:
    """metrics.jsonl, cut back to the step that a run goes on from, and then appended to.

    Args:
        log_to: tensorboard, wandb: where the rows go besides.

    Raises:
        JaneoxError: a package that `log_to` needs is not installed; the disk is full.
    """

    def __init__(self, file: Path, first: int, log_to: tuple[str, ...] = ()):
        self.file = file
        kept = [row for row in read_metrics(file) if row["step"] <= first] if file.exists() else []
        with new_file(file) as new:
            new.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._others = [{"tensorboard": _tensorboard, "wandb": _wandb}[name](file.parent, first) for name in log_to]

    def write(self, step: int, tokens: int, figures: dict[str, Any], timing: dict[str, float]) -> None:
        """`timing` and the time of day are the fields of "time", the only ones that differ between two equal runs."""
        rounded = {name: round(value, 4) for name, value in timing.items()}
        row = {"step": step, "tokens": tokens, **figures, "time": rounded | {"at": round(time.time())}}
        try:
            with open(self.file, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
        except OSError as error:
            raise JaneoxError(
                f"{self.file}: cannot be written ({error.strerror}); free some space and go on"
            ) from error
        for write in self._others:
            write(step, {name: value for name, value in (figures | timing).items() if isinstance(value, (int, float))})


def _tensorboard(folder: Path, first: int) -> Callable[[int, dict[str, float]], None]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise JaneoxError("train.log_to = tensorboard needs it: pip install 'janeox[track]'") from error
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def write(step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write


def _wandb(folder: Path, first: int) -> Callable[[int, dict[str, float]], None]:
    try:
        import wandb
    except ImportError as error:
        raise JaneoxError("train.log_to = wandb needs it: pip install 'janeox[track]'") from error
    run = wandb.init(project="janeox", name=folder.name, id=folder.name, dir=str(folder), resume="allow")
    return lambda step, figures: run.log(figures, step=step)


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
