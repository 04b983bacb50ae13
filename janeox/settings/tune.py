"""The settings of the verbs that tune a model for dialogue."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from janeox.config import LoopConfig, OptimConfig
from janeox.errors import JaneoxError


def _optim(learning_rate: float) -> partial[OptimConfig]:
    return partial(OptimConfig, learning_rate=learning_rate, warmup_fraction=0.03, weight_decay=0.0, beta2=0.999)


@dataclass
class Tune:
    """What all of them share."""

    out: Path = Path("runs/tune")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/."""
    model: str = ""
    """The model to begin with, a folder or Hugging Face Hub id; empty: the newest of runs/*/model."""
    data: tuple[Path, ...] = ()
    """JSONL files, a row a line."""
    valid: tuple[Path, ...] = ()
    """JSONL files that are measured and not learned."""
    micro_batch_rows: int = 8
    """Rows a forward pass; more need more memory, and never change the result beyond rounding."""
    train: LoopConfig = field(default_factory=partial(LoopConfig, sample_prompt="日本の首都はどこですか？"))

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        for name in ("micro_batch_rows", "batch_rows", "max_tokens"):
            if getattr(self, name, 1) < 1:
                raise JaneoxError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("lora_rank", "lora_alpha"):
            if getattr(self, name, 0) < 0:
                raise JaneoxError(f"{name} = {getattr(self, name)}: must be at least 0")
        epochs = getattr(self, "epochs", 1)
        if not 0 < epochs < float("inf"):
            raise JaneoxError(f"epochs = {epochs}: must be above 0")


@dataclass
class Adapted(Tune):
    """Stages that can train adapters in place of all weights."""

    lora_rank: int = 0
    """0 trains all weights; above, adapters of this rank beside every matrix of the layers (LoRA, arXiv 2106.09685)."""
    lora_alpha: int = 16
    """The adapters' product counts alpha / rank."""


@dataclass
class Sft(Adapted):
    """Conversations → a model that answers (SFT). Rows: `messages`, ShareGPT's `conversations`, or speaker and text."""

    out: Path = Path("runs/sft")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/, with lora_rank adapter/ too."""
    max_tokens: int = 2048
    """Tokens a row, at most the model's context. Conversations are packed into rows and never see each other; what is
    longer is cut."""
    batch_rows: int = 16
    """Rows an optimizer step."""
    epochs: float = 2.0
    """Passes over the data."""
    optim: OptimConfig = field(default_factory=_optim(2e-5))


@dataclass
class Reward(Tune):
    """Pairs of replies → a model that scores replies. Rows: `prompt` (text or turns), `chosen`, `rejected`."""

    out: Path = Path("runs/reward")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/ (GPTNeoXForSequenceClassification)."""
    max_tokens: int = 2048
    """Pairs with a longer side lose the start of their prompt."""
    batch_rows: int = 16
    """Pairs an optimizer step."""
    epochs: float = 1.0
    """Passes over the data."""
    optim: OptimConfig = field(default_factory=_optim(1e-5))


@dataclass
class Dpo(Tune):
    """Pairs of replies → a model that prefers the chosen ones (DPO, arXiv 2305.18290). Rows as for `reward`."""

    out: Path = Path("runs/dpo")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/."""
    max_tokens: int = 2048
    """Pairs with a longer side lose the start of their prompt."""
    batch_rows: int = 16
    """Pairs an optimizer step."""
    epochs: float = 1.0
    """Passes over the data."""
    beta: float = 0.1
    """How closely the model is held to the one that it began as."""
    optim: OptimConfig = field(default_factory=_optim(1e-6))

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning."""
        super().__post_init__()
        if not 0 < self.beta < float("inf"):
            raise JaneoxError(f"beta = {self.beta}: must be above 0")


@dataclass
class OnPolicy(Adapted):
    """What learning from one's own replies needs. Rows: `prompt`, or a conversation, whose turns before the last reply
    are the prompt."""

    reward: str = ""
    """A folder of `janeox reward`, or a Python function as module:function, list[str] → list[float] over replies."""
    iterations: int = 100
    """Rounds of writing replies and learning from them."""
    batch_rows: int = 64
    """Replies an iteration."""
    num_generations: int = 1
    """Replies a prompt."""
    num_ppo_epochs: int = 1
    """Passes over the replies of an iteration."""
    num_mini_batches: int = 1
    """Optimizer steps a pass."""
    max_tokens: int = 128
    """Of a reply."""
    missing_eos_penalty: float = 0.0
    """Taken from the score of a reply that did not end by itself."""
    cliprange: float = 0.2
    optim: OptimConfig = field(default_factory=_optim(1e-6))

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning or two contradict each other."""
        super().__post_init__()
        for name in ("iterations", "num_generations", "num_ppo_epochs", "num_mini_batches", "kl_horizon"):
            if getattr(self, name, 1) < 1:
                raise JaneoxError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("num_generations", "num_mini_batches"):
            if self.batch_rows % getattr(self, name):
                raise JaneoxError(f"batch_rows = {self.batch_rows} is no multiple of {name} = {getattr(self, name)}")


@dataclass
class Ppo(OnPolicy):
    """Prompts and a reward → a model that earns more of it (PPO, arXiv 1707.06347 and 1909.08593). Rows: `prompt`, or a
    conversation, whose turns before the last reply are the prompt."""

    out: Path = Path("runs/ppo")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/, with lora_rank adapter/ too."""
    num_ppo_epochs: int = 4
    """Passes over the replies of an iteration."""
    kl_coef: float = 0.05
    """β at the beginning: the price of each nat by which the model leaves the one that it began as."""
    kl_target: float = 6.0
    """KL a reply, in nats, that β is steered to; 0 keeps β."""
    kl_horizon: int = 10_000
    """Replies over which β is steered."""
    gamma: float = 1.0
    lam: float = 0.95
    """γ and λ of generalised advantage estimation (arXiv 1506.02438)."""
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    """Weight of the value loss."""
    score_clip: float = 0.0
    """Scores are cut to ± this; 0 leaves them."""
    whiten_rewards: bool = False
    optim: OptimConfig = field(default_factory=_optim(3e-6))


@dataclass
class Grpo(OnPolicy):
    """Prompts and a reward → a model that earns more of it; replies to one prompt are compared with each other (GRPO,
    arXiv 2402.03300, with the mean over all tokens of arXiv 2503.14476). Rows as for `ppo`."""

    out: Path = Path("runs/grpo")
    """Folder of the run: config.toml, metrics.jsonl, state/, model/, with lora_rank adapter/ too."""
    num_generations: int = 8
    """Replies a prompt, each compared with the others."""
    beta: float = 0.0
    """Weight of the KL to the model of the beginning; 0 needs no copy of it."""

    def __post_init__(self) -> None:
        """Raises JaneoxError where a value has no meaning or two contradict each other."""
        if not 0 <= self.beta < float("inf"):
            raise JaneoxError(f"beta = {self.beta}: must be at least 0")
        super().__post_init__()
        if self.num_generations < 2:
            raise JaneoxError("num_generations = 1: a reply is compared with others to the same prompt; at least 2")


@dataclass
class Judge:
    """Two models answer the same prompts; a reward says who wins. The table is that of the series' cards."""

    models: tuple[str, ...] = ()
    """Two folders or Hugging Face Hub ids, the new one first; also as bare arguments."""
    reward: str = ""
    """A folder of `janeox reward`, or a Python function as module:function, list[str] → list[float] over replies."""
    data: tuple[Path, ...] = ()
    """JSONL files; rows as for `ppo`."""
    limit: int | None = None
    """Only the first so many prompts; none: all."""
    max_tokens: int = 128
    """Of a reply."""
    temperature: float = 0.7
    """0 takes the likeliest token; other replies are drawn, with the same seeds for both."""
    tie: float = 0.1
    """Scores closer than this are a tie: with 0.1, one reply is preferred with a probability of at most 52.5 %."""
    seed: int = 0
    out: Path = Path("judged.jsonl")
    """Prompts, replies and scores."""
    device: str = "auto"


@dataclass
class Chat:
    """A talk in the terminal. /reset forgets it, /system TEXT gives an instruction, Ctrl-D ends."""

    model: str = ""
    """Folder or Hugging Face Hub id, also as a bare argument; empty: the newest of runs/*/model."""
    temperature: float | None = None
    """None: what the series recommends for this variant."""
    top_p: float = 1.0
    repetition_penalty: float | None = None
    """None: what the series recommends for this variant."""
    max_new_tokens: int = 512
    seed: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""
