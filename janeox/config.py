"""Every setting of every verb: plain dataclasses, filled from a TOML recipe and then from the command line.

No torch here, so that `janeox VERB --help` is instant. A recipe has one table per section (`[model]`, `[train]`, …); a
verb reads the sections that it has fields for. The docstring under a field is its help text.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from janeox.errors import JaneoxError

T = TypeVar("T")


@dataclass
class CorpusConfig:
    """Raw files → clean documents, split into train and valid."""

    sources: dict[str, str] = field(default_factory=dict)
    """Name of each source → its files, as a path or glob. The format is read off the file."""
    valid_fraction: float = 0.01
    """Share of documents held out for validation, chosen by a hash of the document's text."""
    min_chars: int = 50
    """Shorter documents are dropped."""


@dataclass
class TokenizerConfig:
    """The sentencepiece model; the defaults are those of the model card."""

    vocab_size: int = 32000
    """Number of pieces, special and byte pieces included."""
    character_coverage: float = 0.9995
    """Share of the characters that get a piece of their own; the rest is spelled in bytes."""
    normalization: Literal["identity", "nfkc", "nmt_nfkc"] = "identity"
    """identity keeps every character; nfkc and nmt_nfkc fold full-width forms and cannot be undone by decoding."""
    sample_chars: int = 10_000_000
    """Train on a seeded sample of about this many characters."""
    seed: int = 0


@dataclass
class GPTNeoXConfig:
    """Shape of the model, under the names of the Hugging Face config; the defaults are rinna's 3.6B."""

    vocab_size: int = 32000
    hidden_size: int = 2816
    num_hidden_layers: int = 36
    num_attention_heads: int = 22
    intermediate_size: int = 11264
    hidden_act: str = "gelu"
    """gelu (exact), gelu_new, gelu_fast or gelu_pytorch_tanh."""
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    rotary_pct: float = 1.0
    """Share of each head's dimensions that is rotated."""
    rotary_emb_base: float = 10000
    rope_scaling_factor: float = 1.0
    """Linear position interpolation (arXiv 2306.15595): positions are divided by this."""
    use_parallel_residual: bool = False
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int = 2
    eos_token_id: int = 3

    def __post_init__(self) -> None:
        """Raises JaneoxError where two fields contradict each other or a value makes no model."""
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings"):  # fmt: skip
            if getattr(self, name) < 1:
                raise JaneoxError(f"model.{name} = {getattr(self, name)}: must be at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise JaneoxError(
                f"model.hidden_size = {self.hidden_size} does not divide into "
                f"model.num_attention_heads = {self.num_attention_heads} heads"
            )
        if self.head_dim % 2:
            raise JaneoxError(f"head size {self.head_dim} (hidden_size / num_attention_heads) must be even")
        if not 0 <= self.rotary_pct <= 1:
            raise JaneoxError(f"model.rotary_pct = {self.rotary_pct}: must lie between 0 and 1")
        if self.hidden_act not in ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"):
            raise JaneoxError(
                f"model.hidden_act = {self.hidden_act!r} is not supported; "
                "use gelu, gelu_new, gelu_fast or gelu_pytorch_tanh"
            )
        for name in ("bos_token_id", "eos_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise JaneoxError(
                    f"model.{name} = {getattr(self, name)} lies outside the vocabulary of {self.vocab_size}"
                )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Rotated dimensions of a head, as transformers rounds them."""
        return int(self.head_dim * self.rotary_pct)


@dataclass
class DataConfig:
    """Which tokens are trained on and in what portions."""

    weights: dict[str, float] = field(default_factory=dict)
    """Share of the training tokens drawn from each source; empty means in proportion to its size."""
    sequence_length: int = 2048
    """Tokens a row."""
    batch_tokens: int = 524_288
    """Tokens an optimizer step."""
    micro_batch_rows: int = 8
    """Rows a forward pass; more need more memory, and never change the result beyond rounding."""


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon updates the hidden matrices with orthogonalised momentum, the rest with AdamW."""
    learning_rate: float = 1.6e-4
    """Peak, for AdamW's parameters."""
    muon_learning_rate: float = 0.02
    """Peak, for the matrices under muon."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """cosine decay, or warm up, stay, decay linearly over the last fifth."""
    warmup_fraction: float = 0.01
    final_fraction: float = 0.1
    """Last learning rate as a share of the peak."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """On matrices only; never on biases, norms and embeddings."""
    clip_norm: float = 1.0
    """Gradient norm above which gradients are scaled down; 0 never does."""


@dataclass
class TrainConfig:
    """The loop."""

    tokens: int = 312_500_000_000
    """Token budget of the whole run; sets the number of steps and the schedule."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:0, mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights and optimizer state are float32. auto: bfloat16 where the hardware has it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU."""
    save_every: int = 500
    """Steps between saves; the last step always saves."""
    evaluate_every: int = 250
    """Steps between validation passes."""
    sample_every: int = 500
    """Steps between sample texts in the log; 0 for none."""
    sample_prompt: str = "西田幾多郎は、"
    log_every: int = 10


@dataclass
class SamplingConfig:
    """How the next token is chosen; names and meaning as in transformers."""

    max_new_tokens: int = 100
    min_new_tokens: int = 0
    temperature: float = 0.8
    """0 picks the likeliest token each time."""
    top_k: int = 0
    """Keep the k likeliest; 0 keeps all."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    """End before the first of these strings."""
    seed: int | None = None
    """The same seed gives the same text, alone or in any batch; none gives a new one each time."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "must be at least 1"),
            "min_new_tokens": (
                0 <= self.min_new_tokens <= self.max_new_tokens,
                f"must lie between 0 and max_new_tokens = {self.max_new_tokens}",
            ),
            "temperature": (0 <= self.temperature < float("inf"), "must be 0 or more"),
            "top_k": (self.top_k >= 0, "must be 0 or more"),
            "top_p": (0 < self.top_p <= 1, "must lie above 0 and at most 1"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "must be above 0"),
            "seed": (self.seed is None or 0 <= self.seed < 2**63, "must lie between 0 and 2^63 - 1"),
            "stop": (all(self.stop), "must hold no empty string"),
        }
        for name, (holds, must) in rules.items():
            if not holds:
                raise JaneoxError(f"{name} = {getattr(self, name)!r}: {must}")


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


SECTIONS = {f.name for f in dataclasses.fields(Run)}


def read_recipe(cls: type[T], path: Path | str) -> T:
    """Fills dataclass `cls` from a TOML recipe, taking only the sections that `cls` has.

    Raises:
        JaneoxError: the file is missing or not TOML, or a key is unknown (names the nearest known one) or of the
            wrong type.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JaneoxError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JaneoxError(f"{path}: not a TOML file: {error}") from error
    own = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in own | SECTIONS:
            raise JaneoxError(f"{path}: unknown key {key!r}{nearest(key, own | SECTIONS)}")
    try:
        return from_table(cls, {key: value for key, value in table.items() if key in own})
    except JaneoxError as error:
        raise JaneoxError(f"{path}: {error}") from error


def from_table(cls: type[T], table: dict[str, Any], where: str = "") -> T:
    """Builds dataclass `cls` from nested dicts, checking names and types; `where` is the dotted path so far."""
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise JaneoxError(f"unknown key {where + key!r}{nearest(key, hints, where)}")
        values[key] = _convert(hints[key], value, where + key)
    return cls(**values)


def nearest(word: str, known: typing.Iterable[str], prefix: str = "") -> str:
    """`; did you mean 'x'?` for the known name most like `word`, or a list of the names where none is like it."""
    names = sorted(known)
    like = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if like:
        return f"; did you mean {prefix + like[0]!r}?"
    return f"; known are {', '.join(names)}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Checks one TOML value against a type hint; widens int to float, str to Path and list to tuple."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = JaneoxError(f"{where} = {value!r}: expected {_type_name(hint)}")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise wrong
        return from_table(hint, value, where + ".")  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise wrong
        return value
    if origin is types.UnionType:
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_convert(arguments[0], item, where) for item in value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise wrong


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("typing.", "")


def to_table(value: Any) -> Any:
    """The inverse of `from_table`: nested dicts that TOML and JSON can hold (None is left out)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {key: to_table(item) for key, item in items.items() if item is not None}
    if isinstance(value, dict):
        return {key: to_table(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_table(item) for item in value]
    return str(value) if isinstance(value, Path) else value
