"""The settings of the verbs that train and plot."""

from dataclasses import dataclass, field
from pathlib import Path

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
    """metrics.jsonl → loss.png, also while the run goes on."""

    run: Path = Path("runs/run")
    """Folder of the run."""
