"""The settings of the verbs that make and look at a corpus."""

from dataclasses import dataclass, field
from pathlib import Path

from janeox.config import CorpusConfig


@dataclass
class Clean:
    """Raw files → clean documents, without duplicates, split into train and valid."""

    out: Path = Path("runs/run")
    """Folder of the run; the cleaned corpus appears in its corpus/ when everything is done."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    explain: str = ""
    """FILE or FILE:N: cleans nothing, but shows that file's first or N-th document with what each rule says of it."""
