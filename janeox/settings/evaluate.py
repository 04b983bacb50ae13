"""The settings of the verbs that measure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from janeox.settings.run import Run


@dataclass
class Evaluate:
    """Perplexity and bits per byte of texts, by file and in all, with 95 % intervals."""

    input: tuple[str, ...] = ()
    """Files in any of the corpus formats; none: the validation split of the run that made the model."""
    model: str = ""
    """Folder or Hugging Face Hub id; empty: the newest of runs/*/model."""
    documents: Literal["apart", "packed"] = "apart"
    """apart: each document by itself from its beginning; packed: one stream of all, in their order, as in training."""
    context: int | None = None
    """The most tokens that a prediction sees; none: the model's whole context."""
    stride: int | None = None
    """Tokens by which the window advances in what is longer than the context; none: half the context."""
    published: bool = False
    """Also the perplexity as rinna's and gpt-neox's programs compute it, for comparison with their figures only."""
    engine: Literal["janeox", "transformers"] = "janeox"
    """transformers scores any causal model that it can open, with that model's own tokenizer."""
    bits: Literal[32, 16, 8, 4] | None = None
    """Score what the CPU kernels compute with weights in so many bits; none: PyTorch, in `dtype`."""
    json_file: Path | None = None
    """Write the figures there too."""
    device: str = "auto"
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""


@dataclass
class Tasks:
    """Japanese benchmarks through lm-evaluation-harness, with the prompts of the public leaderboard."""

    tasks: tuple[str, ...] = ()
    """Names of tasks, also of the harness's own; none: lists those that come with janeox. The last number of a name is
    the prompt's version: 0.2 is for base models, 0.4 for models tuned on the series' dialogue form."""
    data: Path | None = None
    """Folder of the tasks' data, for JGLUE the files of its repository (jnli-valid-v1.3.json, …)."""
    model: str = ""
    """Folder or Hugging Face Hub id; empty: the newest of runs/*/model."""
    limit: int | None = None
    """Ask only so many questions of each task; none: all."""
    engine: Literal["janeox", "transformers"] = "janeox"
    """transformers: the harness's own backend, for any model that it can open."""
    bits: Literal[32, 16, 8, 4] | None = None
    """Of the weights in the CPU kernels; none: as many as are stored."""
    json_file: Path | None = None
    """Write the scores there too."""
    device: str = "auto"
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16; where the CPU kernels compute, `bits` says it."""


@dataclass
class Compare:
    """Models side by side: perplexity, tasks, speed, memory and continuations, as a table and one HTML page."""

    models: tuple[str, ...] = ()
    """Folders or Hugging Face Hub ids."""
    input: tuple[str, ...] = ()
    """Files of texts for the perplexity; none: the validation split of the run that made the first model."""
    chars: int = 50_000
    """Characters of them that are read."""
    tasks: tuple[str, ...] = ()
    """Tasks to ask, as in `janeox tasks`."""
    data: Path | None = None
    """Folder of the tasks' data."""
    limit: int | None = None
    """Ask only so many questions of each task; none: all."""
    prompts: tuple[str, ...] = ("西田幾多郎は、", "日本の歴史は、", "吾輩は猫である。")
    """Beginnings that every model continues."""
    out: Path = Path("comparison.html")
    """The page; the figures go beside it as .json."""
    bits: Literal[32, 16, 8, 4] | None = None
    """Of the weights in the CPU kernels; none: as many as are stored."""
    device: str = "auto"
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""


@dataclass
class LadderSize:
    """Models of one shape."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    tokens: tuple[int, ...]
    """One model is trained on each of these numbers of tokens."""
    held_out: bool = False
    """Not fitted, but predicted from the others."""


@dataclass
class Ladder(Run):
    """Trains models of several sizes, fits their loss against size and tokens, and predicts larger ones from it."""

    out: Path = Path("runs/ladder")
    """Folder of the ladder: corpus, tokenizer and shards that all rungs share, and a run for each rung."""
    sizes: tuple[LadderSize, ...] = ()
    """Shapes and tokens; all else is as in the sections below, and the feed-forward layer is 4 × hidden_size."""
    predict: tuple[Path, ...] = (Path("recipes/3.6b.toml"),)
    """Recipes whose loss is predicted from the ladder."""
