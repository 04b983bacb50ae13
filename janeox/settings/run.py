"""The settings of `run`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from janeox.config import CorpusConfig, DataConfig, GPTNeoXConfig, OptimConfig, TokenizerConfig, TrainConfig
from janeox.errors import JaneoxError


@dataclass
class Run:
    """All steps of a recipe, from raw text to a model that speaks; a step that is done is not done again."""

    out: Path = Path("runs/run")
    """Folder of the run."""
    until: Literal["shards", "model"] = "model"
    """shards: ends when corpus, tokenizer and token shards are made, so that another machine can train on them."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: GPTNeoXConfig = field(default_factory=GPTNeoXConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Raises JaneoxError where two sections contradict each other."""
        if self.tokenizer.vocab_size > self.model.vocab_size:
            raise JaneoxError(
                f"tokenizer.vocab_size = {self.tokenizer.vocab_size} is larger than model.vocab_size = "
                f"{self.model.vocab_size}; make them equal"
            )
        if self.data.sequence_length > self.model.max_position_embeddings:
            raise JaneoxError(
                f"data.sequence_length = {self.data.sequence_length} is longer than model.max_position_embeddings = "
                f"{self.model.max_position_embeddings}"
            )
