"""The shape of a model: the `[model]` section of a recipe, and `config.json` in a Hugging Face folder."""

from dataclasses import dataclass, fields
from typing import Any

from janeox.errors import JaneoxError


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
        for name in ("initializer_range", "layer_norm_eps", "rotary_emb_base", "rope_scaling_factor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise JaneoxError(f"model.{name} = {getattr(self, name)}: must be above 0")
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

    @classmethod
    def from_hf(cls, table: dict[str, Any], where: str = "config.json") -> "GPTNeoXConfig":
        """Reads a Hugging Face `config.json`, in the form of transformers 4 (`rotary_pct`) or 5 (`rope_parameters`).

        Keys that do not change the computation are ignored; what this model cannot do is an error.

        Raises:
            JaneoxError: another architecture, an unsupported rotary scaling, or a value that makes no model.
        """
        if table.get("model_type") != "gpt_neox":
            raise JaneoxError(f"{where}: model_type is {table.get('model_type')!r}; janeox runs 'gpt_neox' models")
        rope = dict(table.get("rope_scaling") or {}) | dict(table.get("rope_parameters") or {})
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "linear"):
            raise JaneoxError(f"{where}: rotary scaling {kind!r} is not supported; default and linear are")
        values = {f.name: table[f.name] for f in fields(cls) if f.name in table}
        # Defaults of transformers' GPTNeoXConfig where they differ from the 3.6B's.
        values.setdefault("use_parallel_residual", True)
        values["rotary_pct"] = float(rope.get("partial_rotary_factor", table.get("rotary_pct", 0.25)))
        values["rotary_emb_base"] = float(rope.get("rope_theta", table.get("rotary_emb_base", 10000)))
        values["rope_scaling_factor"] = float(rope.get("factor", 1.0)) if kind == "linear" else 1.0
        try:
            return cls(**values)
        except (JaneoxError, TypeError) as error:
            raise JaneoxError(f"{where}: {error}") from error

    def to_hf(self, dtype: str) -> dict[str, Any]:
        """The `config.json` that transformers 4 and 5 both read; for the 3.6B, key by key the published one."""
        table: dict[str, Any] = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "use_cache": True}
        table |= {f.name: getattr(self, f.name) for f in fields(self)}
        table["rotary_emb_base"] = int(self.rotary_emb_base) if self.rotary_emb_base % 1 == 0 else self.rotary_emb_base
        table["torch_dtype"] = dtype
        factor = table.pop("rope_scaling_factor")
        if factor != 1.0:
            table["rope_scaling"] = {"type": "linear", "rope_type": "linear", "factor": factor}
        if self.attention_bias:  # the default, and not among the published keys
            del table["attention_bias"]
        return dict(sorted(table.items()))
