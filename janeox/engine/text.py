"""One text that the engine writes: what its reader sees, and what writing it needs."""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from janeox.config import SamplingConfig
from janeox.engine.lookup import PromptLookup
from janeox.engine.pace import Pace
from janeox.engine.stop import StopScanner
from janeox.tokenizer import StreamDecoder, Tokenizer

DRAWN = 16  # random numbers at once

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(eq=False)
class Generated:
    """A text as far as it has come."""

    prompt: list[int]
    sampling: SamplingConfig
    ids: list[int] = field(default_factory=list)
    """The sampled ids; the last is `</s>` where the model ended the text."""
    logprobs: list[float] = field(default_factory=list)
    """log p of each of `ids` under the model itself: the softmax of its logits, before temperature and filters."""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    """With `sampling.top_logprobs`, the likeliest (id, log p) in the place of each of `ids`, likeliest first."""
    text: str = ""
    """What `ids` spell in whole characters, up to a stop string; empty in an engine without a tokenizer."""
    finish_reason: FinishReason | None = None
    """stop: `</s>` or a stop string; length: `max_new_tokens` or the end of the context; None: still running."""


class Writer:
    """Its place in the engine, its random numbers, and its unfinished characters."""

    def __init__(self, generated: Generated, tokenizer: Tokenizer | None):
        self.generated = generated
        self.slot, self.cached = -1, 0
        self.drafted = 0
        """How many of its tokens the slot of the model that guesses holds."""
        # Texts of one kind are sampled in one go.
        self.kind = repr(replace(generated.sampling, seed=None, stop=(), max_new_tokens=2**31))
        looked_up = generated.sampling.prompt_lookup_num_tokens
        self.lookup = PromptLookup(generated.prompt) if looked_up else None
        self.pace = Pace(looked_up or generated.sampling.num_assistant_tokens)
        self._generator = torch.Generator()
        if generated.sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(generated.sampling.seed)
        self._uniforms: deque[float] = deque()
        self._decoder = StreamDecoder(tokenizer) if tokenizer else None
        self._scanner = StopScanner(generated.sampling.stop)

    def uniform(self, ahead: int) -> float:
        """The random number in [0, 1) of the token that comes `ahead` tokens after the next."""
        while len(self._uniforms) <= ahead:  # the same numbers as one by one
            self._uniforms += torch.rand(DRAWN, generator=self._generator, dtype=torch.float64).tolist()
        return self._uniforms[ahead]

    def push(self, id: int) -> bool:
        """Adds an id; whether a stop string is complete."""
        self.generated.ids.append(id)
        self.pace.push()
        if self.lookup:
            self.lookup.push(id)
        if self._uniforms:
            self._uniforms.popleft()
        if self._decoder:
            self.generated.text += self._scanner.push(self._decoder.push(id))
        return self._scanner.stopped

    def close(self) -> None:
        """Adds what was held back."""
        if self._decoder and not self._scanner.stopped:
            self.generated.text += self._scanner.push(self._decoder.flush()) + self._scanner.flush()
