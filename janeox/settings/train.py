"""The settings of the verbs that train and plot."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from janeox.config import DataConfig, GPTNeoXConfig, OptimConfig, TrainConfig


@dataclass
class Pretrain:
    """Token shards → a model, or further training of one that was stopped."""

    out: Path = Path("runs/run")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/, loss.png."""
    shards: Path | None = None
    """Folder of token shards; none: the run's own shards/."""
    tokenizer_folder: Path | None = None
    """The tokenizer that made the shards; none: the run's own tokenizer/."""
    model: GPTNeoXConfig = field(default_factory=GPTNeoXConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class Plot:
    """metrics.jsonl → a picture of the loss, also while a run goes on; several runs over each other."""

    run: tuple[Path, ...] = (Path("runs/run"),)
    """Folders of the runs, also as bare arguments."""
    picture: Path | None = None
    """Where the PNG goes; none: loss.png in the run's folder, or here where there are several."""


@dataclass
class Plan:
    """What a recipe needs: memory, what fits, and how long it takes.

    For GPUs that are to be rented, memory by part and time are reckoned in a moment. `--gpu here` measures this machine
    instead, its GPU or else its CPU: a minute or a few of real steps with a few of the recipe's layers tell speed and
    memory of all.
    """

    gpu: Literal["here", "h100", "h200", "a100"] = "h100"
    """Which GPUs; here: the device that `pretrain` would use on this machine (train.device), also where that is a
    CPU."""
    num_gpus: int = 1
    """How many, 8 a machine."""
    mfu: float | None = None
    """Share of the peak to reckon with; none: what was measured for a plain PyTorch model of this size."""
    model: GPTNeoXConfig = field(default_factory=GPTNeoXConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
