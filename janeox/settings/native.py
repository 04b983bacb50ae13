"""The settings of the verbs about weights and speed on a CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class Quantize:
    """A model folder → one with weights of 8 or 4 bits that opens at once, and what that costs in perplexity."""

    folder: str = ""
    """Folder or Hugging Face Hub id, also as a bare argument; empty: the newest of runs/*/model."""
    bits: Literal[8, 4] = 8
    """8 halves the weights of a half-precision model nearly without loss; 4 halves them again, with some."""
    out: Path | None = None
    """The new folder; none: FOLDER-8bit or FOLDER-4bit, beside the old one."""
    input: tuple[str, ...] = ()
    """Files to measure the loss on, in any of the corpus formats; none: the validation split of the model's run."""
    tokens: int = 20_000
    """About how many tokens of them are measured; 0 leaves it out."""


@dataclass
class Bench:
    """Speed of generation on this CPU, as a share of what the machine can do at best, measured in the same run."""

    model: str = ""
    """Folder or Hugging Face Hub id, also as a bare argument; empty: the newest of runs/*/model."""
    bits: tuple[Literal[32, 16, 8, 4], ...] = (16, 8, 4)
    """Precisions of the weights; a folder that `janeox quantize` wrote has its own only."""
    rows: tuple[int, ...] = (1, 8)
    """Texts that advance together."""
    prompt: int = 256
    """Tokens of the prompt whose speed is measured."""
    steps: int = 16
    """Steps of each measurement; the median counts."""
    rivals: bool = True
    """Also torch, and transformers where it is installed, on the same weights."""
