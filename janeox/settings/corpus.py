"""The settings of the verbs that make and look at a corpus."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from janeox.config import CorpusConfig


@dataclass
class Clean:
    """Raw files → clean documents, without duplicates, split into train and valid."""

    out: Path = Path("runs/run")
    """Folder of the run; the cleaned corpus appears in its corpus/ when everything is done."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    explain: str = ""
    """FILE or FILE:N: cleans nothing, but shows that file's first or N-th document with what each rule says of it."""


@dataclass
class Download:
    """Fetches a raw corpus, or goes on fetching it: cc100 (15 GB), mc4 (1,024 files), wikipedia (9 GB)."""

    corpus: Literal["cc100", "mc4", "wikipedia"] = "wikipedia"
    out: Path = Path("raw")
    """Folder for the files; what is there already is not fetched again."""
    shards: str = ""
    """mc4: which of its files, as FIRST-LAST; empty means 0-1023."""
    date: str = ""
    """wikipedia: which dump, as YYYYMMDD; empty means the newest that is complete."""
    check: bool = True
    """Reads each archive to its end, which finds what was damaged on the way where the server states no checksum."""
    mirror: str = ""
    """Address of another server's folder with the same files."""
