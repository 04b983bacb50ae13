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
