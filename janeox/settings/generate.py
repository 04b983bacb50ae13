"""The settings of the verbs that write text."""

from dataclasses import dataclass

from janeox.config import SamplingConfig


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
