"""The settings of the verbs that write text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from janeox.config import SamplingConfig


@dataclass
class Generate(SamplingConfig):
    """Continues a text."""

    prompt: str = "西田幾多郎は、"
    """The text, also as a bare argument; - reads it from standard input."""
    input: Path | None = None
    """Prompts from a file in its place: `{"prompt": …}` a line where it ends in .jsonl, else one prompt a line."""
    output: Path | None = None
    """For the answers to `input`, JSON lines in its order; standard output by default."""
    model: str = ""
    """Folder or Hugging Face Hub id; empty: the newest of runs/*/model."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0, mps."""
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""
    bits: Literal[32, 16, 8, 4] | None = None
    """Of the weights, where the native kernels run; by default those that the dtype has."""
    assistant_model: str = ""
    """Folder or Hub id of a smaller model with the same tokenizer: it guesses what comes next, and the text stays the
    same. Pays where it is ten times smaller and often right."""
