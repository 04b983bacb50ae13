"""The settings of the tokenizer's verbs."""

from dataclasses import dataclass, field
from pathlib import Path

from janeox.config import TokenizerConfig


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
    dialogue: bool = False
    """Write the series' chat template too, for a folder of one of its tuned models, which came without."""


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
class ImportShards:
    """Token files of gpt-neox or Megatron (.bin/.idx) → shards. The other way needs nothing: shards are such files."""

    files: tuple[Path, ...] = ()
    """The .bin or .idx files, or their common path, also as bare arguments; each becomes a source of its name."""
    out: Path = Path("runs/run")
    """Folder of the run; the shards appear in its shards/."""
    tokenizer_folder: Path | None = None
    """Folder with the spiece.model that made them; none: the run's own tokenizer/."""
    valid: bool = False
    """They are held out for validation."""
