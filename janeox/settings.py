"""The settings of each verb of the command line: sections of a recipe (`config.py`), files and folders.

`out` is the folder of the run for all of them, so that one recipe serves every verb.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from janeox.config import (
    CorpusConfig,
    DataConfig,
    GPTNeoXConfig,
    OptimConfig,
    SamplingConfig,
    TokenizerConfig,
    TrainConfig,
)
from janeox.errors import JaneoxError


@dataclass
class Run:
    """All steps of a recipe, from raw text to a model that speaks; a step that is done is not done again."""

    out: Path = Path("runs/run")
    """Folder of the run."""
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


@dataclass
class Clean:
    """Raw files → clean documents, without duplicates, split into train and valid."""

    out: Path = Path("runs/run")
    """Folder of the run; the cleaned corpus appears in its corpus/ when everything is done."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    explain: str = ""
    """FILE or FILE:N: cleans nothing, but shows that file's first or N-th document with what each rule says of it."""


@dataclass
class TrainTokenizer:
    """Cleaned text → a tokenizer folder that sentencepiece, transformers and tokenizers all read alike."""

    out: Path = Path("runs/run")
    """Folder of the run; the tokenizer appears in its tokenizer/."""
    input: tuple[Path, ...] = ()
    """Cleaned corpus folders (their training split is read) or corpus files; none: the run's own corpus/."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    compare: tuple[Path, ...] = ()
    """Other tokenizers, as folders or model files, whose figures are printed beside."""


@dataclass
class ExportTokenizer:
    """A folder with spiece.model → the same with the files by which transformers and tokenizers read it rightly."""

    folder: Path = Path("runs/run/tokenizer")
    """The folder, also as a bare argument; a replaced tokenizer_config.json is kept beside the new one."""


@dataclass
class Doctor:
    """Says which libraries installed here read a tokenizer folder wrongly, with an example; status 1 if any does."""

    folder: Path = Path("runs/run/tokenizer")
    """The folder, also as a bare argument."""


@dataclass
class Tokenize:
    """Clean documents → token shards (.bin/.idx, as gpt-neox and Megatron read them)."""

    out: Path = Path("runs/run")
    """Folder of the run; its corpus/ is read, the shards appear in its shards/."""
    tokenizer_folder: Path | None = None
    """Folder with spiece.model; none: the run's own tokenizer/."""


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
class Evaluate:
    """Perplexity and bits per byte of texts, each read by itself from its beginning."""

    input: tuple[str, ...] = ()
    """Files in any of the corpus formats; none: the validation split of the run that made the model."""
    model: str = ""
    """Folder or Hugging Face Hub id; empty: the newest of runs/*/model."""
    stride: int | None = None
    """Tokens by which the window advances in texts longer than the context; none: half the context."""
    engine: Literal["janeox", "transformers"] = "janeox"
    """transformers scores any causal model that it can open, with that model's own tokenizer."""
    json_file: Path | None = None
    """Write the figures there too."""
    device: str = "auto"
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""


@dataclass
class Generate(SamplingConfig):
    """Continues a text."""

    prompt: str = "西田幾多郎は、"
    """The text, also as a bare argument; - reads it from standard input."""
    model: str = ""
    """Folder or Hugging Face Hub id; empty: the newest of runs/*/model."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0, mps."""
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""


@dataclass
class Plot:
    """metrics.jsonl → loss.png, also while the run goes on."""

    run: Path = Path("runs/run")
    """Folder of the run."""
