"""The settings of the verbs that measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
