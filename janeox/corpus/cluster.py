"""A recipe's cleaning on a cluster, by datatrove's executors (the `cluster` extra).

Every machine must see the raw files and the folder of the run. Each stage is a step with datatrove's protocol,
`step(data, rank, world_size)`; a task that was done is not done again, by whomever it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janeox.config import CorpusConfig
from janeox.corpus.pipeline import assemble, prepare
from janeox.corpus.stages import STAGES, Work
from janeox.errors import JaneoxError


@dataclass
class Step:
    """One stage of cleaning, as a step of a datatrove pipeline."""

    work: Work
    stage: str

    def __call__(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterable[Any]:
        """Does this rank's share of the stage's tasks. Nothing comes in and nothing goes on: all is in files."""
        self.work.run(self.stage, rank, world_size)
        return ()


def clean_on(executor: str, config: CorpusConfig, out: Path, tasks: int, **settings: Any) -> dict[str, Any]:
    """Cleans as `clean_corpus` does, with the same bytes, by a datatrove executor; waits for its end.

    Args:
        executor: local or ray. (Slurm's executor returns at once: give it a `Step` for each stage, one after the other,
            and call `assemble`; docs/cleaning.md shows how.)
        tasks: ranks over which each stage is spread.
        settings: handed to the executor (`workers`, `logging_dir`, `cpus_per_task` …).

    Raises:
        JaneoxError: datatrove is not installed, no such executor, or as `clean_corpus`.
    """
    try:
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor
    except ImportError as error:
        raise JaneoxError(f"cleaning on a cluster needs datatrove: pip install 'janeox[cluster]' ({error})") from error
    executors = {"local": LocalPipelineExecutor, "ray": RayPipelineExecutor}
    if executor not in executors:
        raise JaneoxError(f"executor {executor!r}: use {' or '.join(executors)}")
    work = prepare(config, out)
    logs = str(settings.pop("logging_dir", out.with_name(f".{out.name}.logs")))
    for stage in STAGES:
        executors[executor](
            pipeline=[Step(work, stage)], tasks=tasks, logging_dir=f"{logs}/{stage}", skip_completed=False, **settings
        ).run()
    return assemble(work, out)
