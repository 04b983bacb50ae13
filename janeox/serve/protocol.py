"""What clients may ask for, in OpenAI's words, and what that means for the engine."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from janeox.config import SamplingConfig
from janeox.dialogue import STOP, Message, prompt_text, read_messages, written
from janeox.tokenizer import Tokenizer

StopString = Annotated[str, Field(min_length=1, max_length=256)]
Ids = Annotated[list[StrictInt], Field(max_length=100_000)]


class Request(BaseModel):
    """What both kinds of completion take. Unknown options are refused, so that none is ignored in silence."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="", max_length=1000)
    n: int = Field(default=1, ge=1, le=16)
    stream: bool = False
    stream_options: dict[Literal["include_usage"], bool] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    temperature: float = Field(default=1.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=2**31)
    min_p: float = Field(default=0.0, ge=0, le=1)
    typical_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0, le=100)
    no_repeat_ngram_size: int = Field(default=0, ge=0, lt=2**31)
    min_tokens: int = Field(default=0, ge=0, lt=2**31)
    logit_bias: Annotated[dict[int, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=300)] | None = None
    frequency_penalty: Literal[0] | None = Field(default=None, description="not offered: use repetition_penalty")
    presence_penalty: Literal[0] | None = Field(default=None, description="not offered: use repetition_penalty")
    user: str | None = Field(default=None, max_length=1000)

    def stops(self) -> tuple[str, ...]:
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def samplings(self, max_tokens: int, top_logprobs: int) -> list[SamplingConfig]:
        """One for each of the `n` answers, with seeds that count on.

        Raises:
            JaneoxError: values that contradict each other.
        """
        seeds = [None if self.seed is None else (self.seed + copy) % 2**63 for copy in range(self.n)]
        names = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        return [
            SamplingConfig(
                max_tokens,
                self.min_tokens,
                logit_bias=self.logit_bias or {},
                top_logprobs=top_logprobs,
                stop=self.stops(),
                seed=seed,
                **values,
            )
            for seed in seeds
        ]


class CompletionRequest(Request):
    """`POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=64)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=64)]
    )
    max_tokens: int = Field(default=16, ge=1, lt=2**31)
    logprobs: int | None = Field(default=None, ge=0, le=20)

    def prompts(self, tokenizer: Tokenizer) -> list[list[int]]:
        """Ids of each prompt. Text is text: no string in it becomes a control token."""
        many: list[Any] = [self.prompt] if isinstance(self.prompt, str) or not self.prompt else list(self.prompt)
        if many and isinstance(many[0], int):
            many = [many]
        return [tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in many]


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


class ChatRequest(Request):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    def stops(self) -> tuple[str, ...]:
        """The caller's, as the model spells them, and where it would begin to write the user's part."""
        return tuple(map(written, super().stops())) + STOP

    def prompt_ids(self, tokenizer: Tokenizer) -> list[int]:
        """Raises JaneoxError where the turns make no dialogue."""
        turns = [{"role": message.role, "content": message.content} for message in self.messages]
        messages: list[Message] = read_messages({"messages": turns}, "messages")
        return tokenizer.encode(prompt_text(messages))


class TokenizeRequest(BaseModel):
    """`POST /tokenize`."""

    model_config = ConfigDict(extra="forbid")
    model: str = ""
    prompt: str


class DetokenizeRequest(BaseModel):
    """`POST /detokenize`."""

    model_config = ConfigDict(extra="forbid")
    model: str = ""
    tokens: Ids
