"""The sections of a recipe, as plain dataclasses; the docstring under a field is its help text.

`recipe.py` fills them from TOML. No torch here, so that `janeox VERB --help` is instant.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from janeox.errors import JaneoxError
from janeox.model_config import GPTNeoXConfig as GPTNeoXConfig


@dataclass
class CorpusConfig:
    """Raw files → clean documents, split into train and valid."""

    sources: dict[str, str] = field(default_factory=dict)
    """Name of each source → its files, as a path, glob or folder. The format is read off the file."""
    valid_fraction: float = 0.01
    """Share of documents held out for validation, chosen by a hash of the document's text."""
    preset: Literal["light", "swallow", "fineweb2", "llm-jp"] = "light"
    """Which documents are dropped. light: hardly any Japanese, or lines over and over; the others: the published rules
    of these web corpora, which also drop much literature and dialogue."""
    min_chars: int = 50
    """Documents of fewer characters, once cleaned, are dropped."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """min_FIGURE or max_FIGURE → a threshold in place of the preset's; figures as --explain names them. max_FIGURE =
    inf takes a rule out; a figure that the preset has no rule for gets one."""
    word_lists: dict[str, str] = field(default_factory=dict)
    """Name of a list → file with a word a line, in place of janeox's own advertising and adult lists or as one more,
    which thresholds.max_NAME_words then makes a rule."""
    normalization: Literal["identity", "nfkc"] = "identity"
    """identity keeps ？, ①, ｶﾅ and Ａ as written, which the default tokenizer can write again. nfkc folds them into ?,
    1, カナ and A: for a tokenizer that does so anyway (normalization nfkc or nmt_nfkc), so that duplicates and split
    see what the model will see."""
    mask_personal: bool = False
    """E-mail addresses, ends of telephone numbers and public IP addresses are replaced by examples."""
    near_duplicates: bool = False
    """Of documents that are nearly alike, by MinHash, only the first stays, in this and all sources before it."""
    minhash_chars: int = 5
    """Letters of the runs whose sets are compared."""
    minhash_bands: int = 14
    minhash_rows: int = 8
    """Two documents of Jaccard similarity s are found to be alike with probability 1 - (1 - s^rows)^bands: 0.56 at 0.7,
    0.92 at 0.8 and 0.9996 at 0.9 with 14 bands of 8 rows."""
    repeated_lines: int = 0
    """Lines of at least so many characters are kept only where they come first in the whole corpus; 0 keeps all."""
    decontaminate: tuple[str, ...] = ()
    """Evaluation files, as paths or globs: documents that hold a text of theirs (30 letters in a row; all of a shorter
    text, from 13 letters on; a shorter question as a sentence) are dropped."""
    decontaminate_valid: bool = False
    """Training documents that share 249 letters in a row with a validation document are dropped."""
    workers: int = 0
    """Processes that clean; 0: one a core where there is enough to do. The result is the same with any number."""
    stop_on_bad_rows: bool = False
    """A row that cannot be read, or an archive that breaks off, ends the run with its file and line; else it is
    counted, and what can be read is read."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        if not 0 <= self.valid_fraction < 1:
            raise JaneoxError(f"corpus.valid_fraction = {self.valid_fraction}: must be at least 0 and below 1")
        for name in ("min_chars", "minhash_chars", "minhash_bands", "minhash_rows"):
            if getattr(self, name) < 1:
                raise JaneoxError(f"corpus.{name} = {getattr(self, name)}: must be at least 1")
        for name in ("repeated_lines", "workers"):
            if getattr(self, name) < 0:
                raise JaneoxError(f"corpus.{name} = {getattr(self, name)}: must be at least 0")


@dataclass
class TokenizerConfig:
    """The sentencepiece model; the defaults are those of the model card. Spaces stay, unknown text becomes bytes."""

    vocab_size: int = 32000
    """Number of pieces, special and byte pieces included."""
    character_coverage: float = 0.9995
    """Share of the text's characters that get a piece of their own; the rare rest is spelled in bytes."""
    normalization: Literal["identity", "nfkc", "nmt_nfkc"] = "identity"
    """identity keeps every character; nfkc and nmt_nfkc fold full-width forms, nmt_nfkc also turns newlines and tabs
    into spaces, which decoding cannot undo; `tokenizers` is then slower (docs/tokenizer.md)."""
    user_defined_symbols: tuple[str, ...] = ()
    """Strings that are always one piece, wherever a text holds them. "<NL>" is how the series' dialogues write a
    newline; without a piece of its own it is spelled out."""
    sample_chars: int = 10_000_000
    """Train on a seeded sample of lines with about this many characters."""
    seed: int = 0
    """Of the sample."""


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
    separate_documents: bool = False
    """Whether tokens attend to their own document only, with positions from its beginning; otherwise attention runs
    over the whole row, as in gpt-neox."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning or two contradict each other."""
        for name in ("sequence_length", "batch_tokens", "micro_batch_rows"):
            if getattr(self, name) < 1:
                raise JaneoxError(f"data.{name} = {getattr(self, name)}: must be at least 1")
        if self.batch_tokens % self.sequence_length:
            raise JaneoxError(
                f"data.batch_tokens = {self.batch_tokens} is no multiple of data.sequence_length = "
                f"{self.sequence_length}"
            )
        for source, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise JaneoxError(f"data.weights.{source} = {weight}: must be 0 or more")


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon updates the hidden matrices with orthogonalised momentum, the rest with AdamW."""
    learning_rate: float = 1.6e-4
    """Peak. Muon's updates are scaled to the size of AdamW's, so that one value serves both."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """cosine decay, or warm up, stay, decay linearly over the last fifth."""
    warmup_fraction: float = 0.01
    final_fraction: float = 0.1
    """Last learning rate as a share of the peak."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """On matrices only; never on biases and norms."""
    clip_norm: float = 1.0
    """Gradient norm above which gradients are scaled down; 0 never does."""
    skip_norm: float = 0.0
    """Gradient norm above which a batch is left out and reported, as one whose loss is not finite always is; 0 for no
    such bound."""
    z_loss: float = 0.0
    """Weight of the squared log-sum of the logits in the loss (PaLM took 1e-4); 0 for none."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        if not 0 < self.learning_rate < 1:
            raise JaneoxError(f"optim.learning_rate = {self.learning_rate}: must lie between 0 and 1")
        for name in ("warmup_fraction", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise JaneoxError(f"optim.{name} = {getattr(self, name)}: must lie between 0 and 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise JaneoxError(f"optim.{name} = {getattr(self, name)}: must be at least 0 and below 1")
        for name in ("eps", "weight_decay", "clip_norm", "skip_norm", "z_loss"):
            if not 0 <= getattr(self, name) < math.inf:
                raise JaneoxError(f"optim.{name} = {getattr(self, name)}: must be 0 or more")


@dataclass
class LoopConfig:
    """The loop, whatever is learned in it."""

    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda, cuda:0, mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights and optimizer state are float32. auto: bfloat16 where the hardware has it."""
    recompute_layers: int | None = None
    """Layers, from the first, whose activations are computed again in the backward pass instead of kept; the result is
    the same. None: in pre-training as few as make a micro-batch fit, elsewhere 0."""
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
    """Steps between rows in metrics.jsonl."""
    log_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the same rows go besides: tensorboard (files in tensorboard/), wandb (an account there)."""
    keep: int = 1
    """Saves that are kept; those before the last stand in kept/step-N/."""
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the weights in the model folder; the state to go on from is always float32."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        for name in ("save_every", "evaluate_every", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise JaneoxError(f"train.{name} = {getattr(self, name)}: must be at least 1")
        for name in ("recompute_layers", "sample_every"):
            if (getattr(self, name) or 0) < 0:
                raise JaneoxError(f"train.{name} = {getattr(self, name)}: must be at least 0")
        if not 0 <= self.seed < 2**63:
            raise JaneoxError(f"train.seed = {self.seed}: must lie between 0 and 2^63 - 1")


@dataclass
class TrainConfig(LoopConfig):
    """The loop of pre-training."""

    tokens: int = 312_500_000_000
    """Token budget of the whole run; sets the number of steps and the schedule."""
    init: Literal["gpt2", "hf", "neox"] = "gpt2"
    """Spread of the first weights. gpt2: model.initializer_range, less of it in what writes into the residual stream;
    hf: the same in all; neox: GPT-NeoX's small_init and wang_init, from the model's size."""
    tensor_parallel: int = 1
    """Processes among which each layer's heads and hidden units are divided; the others divide the rows of a batch."""
    fp8: bool = False
    """Products of the layers in 8-bit floats (GPUs since compute capability 8.9); the rest as with bfloat16."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        super().__post_init__()
        for name in ("tokens", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise JaneoxError(f"train.{name} = {getattr(self, name)}: must be at least 1")
        if self.fp8 and self.dtype == "float32":
            raise JaneoxError("train.fp8 and train.dtype = 'float32' contradict each other")


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
    """Keep the likeliest that together have this probability."""
    min_p: float = 0.0
    """Keep those with at least this share of the likeliest one's probability."""
    typical_p: float = 1.0
    """Keep the most typical (arXiv 2202.00666) that together have this probability."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that are there already, prompt included, become less likely (arXiv 1909.05858)."""
    no_repeat_ngram_size: int = 0
    """No run of this many tokens comes twice; 0 allows it."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    """Id → what is added to its logit before anything else."""
    top_logprobs: int = 0
    """Report this many of the likeliest tokens, with their log-probabilities, beside each chosen one."""
    prompt_lookup_num_tokens: int = 0
    """Guess up to this many tokens from what followed the same words earlier, and check them in one pass: faster on
    repetitive text, and the same text in the end. 0 does not guess."""
    num_assistant_tokens: int = 5
    """Where a smaller model was loaded beside (`assistant_model`) and nothing is looked up: let it guess up to this
    many tokens, likewise. 0 does not guess."""
    num_beams: int = 1
    """Above 1, beam search: the likeliest text among so many that are followed at once. Nothing is drawn then:
    temperature, top_k, top_p, min_p, typical_p and the seed have no part in it."""
    length_penalty: float = 1.0
    """Beam search divides a text's log-probability by its length to this power: above 0 prefers longer texts."""
    early_stopping: Literal[False, True, "never"] = False
    """When beam search ends, once num_beams texts have ended: True at once; False if the open ones are worse at their
    present length; never only if they can become no better."""
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
            "min_p": (0 <= self.min_p <= 1, "must lie between 0 and 1"),
            "typical_p": (0 < self.typical_p <= 1, "must lie above 0 and at most 1"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "must be 0 or more"),
            "top_logprobs": (self.top_logprobs >= 0, "must be 0 or more"),
            "prompt_lookup_num_tokens": (self.prompt_lookup_num_tokens >= 0, "must be 0 or more"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "must be above 0"),
            "num_assistant_tokens": (self.num_assistant_tokens >= 0, "must be 0 or more"),
            "num_beams": (self.num_beams >= 1, "must be at least 1"),
            "length_penalty": (math.isfinite(self.length_penalty), "must be a finite number"),
            "seed": (self.seed is None or 0 <= self.seed < 2**63, "must lie between 0 and 2^63 - 1"),
            "stop": (all(self.stop), "must hold no empty string"),
        }
        rules["logit_bias"] = (all(map(math.isfinite, self.logit_bias.values())), "must hold finite numbers")
        for name, (holds, must) in rules.items():
            if not holds:
                raise JaneoxError(f"{name} = {getattr(self, name)!r}: {must}")
