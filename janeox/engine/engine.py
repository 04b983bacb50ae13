"""Continuous batching: texts join and leave between steps, and none of them changes another.

Each step hands the backend, for every running text, the ids that its slot does not hold yet: one for a text that is
being written, a portion of the prompt for one that has just come. Then the next tokens are chosen, by one generator of
random numbers a text, so that the same seed gives the same text alone or in any batch.
"""

import math
from collections import deque
from dataclasses import astuple, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from janeox.config import SamplingConfig
from janeox.engine.backend import Backend, Row
from janeox.engine.sampling import draw, next_token_logits
from janeox.engine.stop import StopScanner
from janeox.errors import JaneoxError
from janeox.tokenizer import StreamDecoder, Tokenizer

PROMPT_TOKENS = 512  # of prompts in one step, so that a long one does not hold up the texts that are being written

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(eq=False)
class Generated:
    """One text that the engine writes, as far as it has come."""

    prompt: list[int]
    sampling: SamplingConfig
    ids: list[int] = field(default_factory=list)
    """The sampled ids; the last is `</s>` where the model ended the text."""
    logprobs: list[float] = field(default_factory=list)
    """log p of each of `ids` under the model itself: the softmax of its logits, before temperature and filters."""
    text: str = ""
    """What `ids` spell in whole characters, up to a stop string; empty in an engine without a tokenizer."""
    finish_reason: FinishReason | None = None
    """stop: `</s>` or a stop string; length: `max_new_tokens` or the end of the context; None: still running."""
    _slot: int = -1
    _cached: int = 0
    """Tokens that the slot holds."""


class Engine:
    """Writes many texts at once over one backend. Not for several threads at a time.

    Args:
        tokenizer: for `Generated.text` and stop strings; without one there are only ids.
    """

    def __init__(self, backend: Backend, tokenizer: Tokenizer | None = None):
        self.backend, self.tokenizer = backend, tokenizer
        self.eos_token_id = backend.config.eos_token_id
        self.waiting: deque[Generated] = deque()
        self.running: list[Generated] = []
        self._free = list(range(backend.num_slots))  # the lowest is taken first: slots in use stay together
        self._writers: dict[Generated, _Writer] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self.running and not self.waiting

    def submit(self, ids: list[int], sampling: SamplingConfig) -> Generated:
        """Takes on a text to be continued; it starts when a slot is free. An empty prompt starts a new document.

        Raises:
            JaneoxError: the prompt does not fit the context, holds an id outside the vocabulary, or there are stop
                strings and no tokenizer.
        """
        prompt = list(ids) or [self.eos_token_id]
        if len(prompt) >= self.backend.capacity:
            raise JaneoxError(
                f"the prompt has {len(prompt)} tokens; the model's context is {self.backend.capacity}: shorten it"
            )
        vocab_size = self.backend.config.vocab_size
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise JaneoxError(f"the prompt holds an id outside the model's vocabulary of {vocab_size}")
        if sampling.stop and self.tokenizer is None:
            raise JaneoxError("stop strings need an engine with a tokenizer")
        generated = Generated(prompt, sampling)
        self._writers[generated] = _Writer(generated, self.tokenizer)
        self.waiting.append(generated)
        return generated

    def cancel(self, generated: Generated) -> None:
        """Ends a text where it is; one that is finished stays as it is."""
        if generated.finish_reason is None:
            self._finish(generated, "cancelled")

    def step(self) -> list[Generated]:
        """Advances the running texts by one forward pass of the backend; returns those that have a new token.

        Raises:
            JaneoxError: the model's logits are not numbers.
        """
        self._admit()
        texts, rows, portion = [], [], PROMPT_TOKENS
        for text in self.running:
            if text._cached < len(text.prompt):
                new = text.prompt[text._cached : text._cached + portion]
                portion -= len(new)
            else:
                new = text.ids[-1:]
            if new:
                texts.append(text)
                rows.append(Row(text._slot, text._cached, new))
                text._cached += len(new)
        if not rows:
            return []
        logits = self.backend.forward(rows)
        ready = [place for place, text in enumerate(texts) if text._cached >= len(text.prompt)]
        changed = [texts[place] for place in ready]
        self._choose(changed, logits if len(ready) == len(rows) else logits[ready])
        return changed

    def _admit(self) -> None:
        while self.waiting and self._free:
            generated = self.waiting.popleft()
            generated._slot = self._free.pop(0)
            self.running.append(generated)

    @torch.inference_mode()
    def _choose(self, texts: list[Generated], logits: Tensor) -> None:
        """Draws the next token of each text from (B, V) logits."""
        groups: dict[tuple, list[int]] = {}
        for place, text in enumerate(texts):
            groups.setdefault(self._writers[text].kind, []).append(place)
        for places in groups.values():
            some = [texts[place] for place in places]
            own = logits if len(some) == len(texts) else logits[places]
            chosen = self._draw(some, own)
            logprobs = own.gather(1, chosen[:, None])[:, 0] - own.logsumexp(1)
            for text, id, logprob in zip(some, chosen.tolist(), logprobs.tolist(), strict=True):
                if math.isnan(logprob):
                    raise JaneoxError("the model's logits are not numbers: its weights are damaged")
                self._append(text, id, logprob)

    def _draw(self, texts: list[Generated], logits: Tensor) -> Tensor:
        """(B,) ids of texts with the same way of sampling."""
        sampling, device = texts[0].sampling, logits.device
        ids, mask = torch.empty(len(texts), 0), None
        if sampling.repetition_penalty != 1.0:
            histories = [torch.tensor(text.prompt + text.ids) for text in texts]
            ids = torch.nn.utils.rnn.pad_sequence(histories, batch_first=True)
            lengths = torch.tensor([len(history) for history in histories])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)
            ids = ids.to(device)
        num_new = torch.tensor([len(text.ids) for text in texts], device=device)
        logits = next_token_logits(logits, ids, mask, num_new, sampling, self.eos_token_id)
        if sampling.temperature == 0:
            return logits.argmax(1)
        uniform = [self._writers[text].uniform() for text in texts]
        return draw(logits, torch.tensor(uniform, dtype=torch.float64, device=device))

    def _append(self, text: Generated, id: int, logprob: float) -> None:
        text.ids.append(id)
        text.logprobs.append(logprob)
        if self._writers[text].push(id) or id == self.eos_token_id:
            self._finish(text, "stop")
        elif len(text.ids) == text.sampling.max_new_tokens or text._cached == self.backend.capacity:
            self._finish(text, "length")

    def _finish(self, text: Generated, reason: FinishReason) -> None:
        text.finish_reason = reason
        self._writers.pop(text).close()
        if text in self.running:
            self.running.remove(text)
            self._free = sorted([*self._free, text._slot])
        else:
            self.waiting.remove(text)


class _Writer:
    """What a running text needs beside what its reader sees: its random numbers, and its characters so far."""

    def __init__(self, text: Generated, tokenizer: Tokenizer | None):
        self.text = text
        self.kind = astuple(replace(text.sampling, seed=None, stop=(), max_new_tokens=2**31))
        self.generator = torch.Generator()
        if text.sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(text.sampling.seed)
        self.decoder = StreamDecoder(tokenizer) if tokenizer else None
        self.scanner = StopScanner(text.sampling.stop)

    def uniform(self) -> float:
        """The next random number of this text, in [0, 1)."""
        return torch.rand((), generator=self.generator, dtype=torch.float64).item()

    def push(self, id: int) -> bool:
        """Adds what an id spells; whether a stop string is complete."""
        if self.decoder:
            self.text.text += self.scanner.push(self.decoder.push(id))
        return self.scanner.stopped

    def close(self) -> None:
        """Adds what was held back."""
        if self.decoder and not self.scanner.stopped:
            self.text.text += self.scanner.push(self.decoder.flush()) + self.scanner.flush()
