"""Continuous batching: texts join and leave between steps, and none of them changes another.

Each step hands the backend, for every running text, the ids that its slot does not hold yet: one for a text that is
being written, a portion of the prompt for one that has just come, and perhaps a guess at what follows. Then the next
tokens are chosen, by random numbers that are a text's own, so that a seed gives the same text alone or in any batch,
and with guesses or without.
"""

import math
from collections import deque

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from janeox.config import SamplingConfig
from janeox.engine.backend import Backend, Row
from janeox.engine.sampling import draw, needs_history, next_token_logits
from janeox.engine.slots import Slots
from janeox.engine.text import FinishReason, Generated, Writer
from janeox.errors import JaneoxError
from janeox.tokenizer import Tokenizer

PROMPT_TOKENS = 512  # of prompts in one step, so that a long one does not hold up the texts that are being written


class Engine:
    """Writes many texts at once over one backend. Not for several threads at a time.

    A text may start from what an earlier one left in the backend, so that an engine holds for one set of weights: make
    a new one (which costs nothing) when they have changed.

    Args:
        tokenizer: for `Generated.text` and stop strings; without one there are only ids.
    """

    def __init__(self, backend: Backend, tokenizer: Tokenizer | None = None):
        self.backend, self.tokenizer = backend, tokenizer
        self.eos_token_id = backend.config.eos_token_id
        self.waiting: deque[Generated] = deque()
        self.running: list[Generated] = []
        self._slots = Slots(backend)
        self._writers: dict[Generated, Writer] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self.running and not self.waiting

    def submit(self, ids: list[int], sampling: SamplingConfig) -> Generated:
        """Takes on a text to be continued; it starts when a slot is free. An empty prompt starts a new document.

        Raises:
            JaneoxError: as `check`, or beam search is asked for, which is `beam_search`'s.
        """
        self.check(ids, sampling)
        if sampling.num_beams > 1:
            raise JaneoxError(f"num_beams = {sampling.num_beams}: texts that are written together are not searched for")
        prompt = list(ids) or [self.eos_token_id]
        generated = Generated(prompt, sampling)
        self._writers[generated] = Writer(generated, self.tokenizer)
        self.waiting.append(generated)
        return generated

    def check(self, ids: list[int], sampling: SamplingConfig) -> None:
        """Whether a text can be taken on; changes nothing, so that any thread may ask.

        Raises:
            JaneoxError: the prompt does not fit the context, an id lies outside the vocabulary, or there are stop
                strings and no tokenizer.
        """
        if len(ids) >= self.backend.capacity:
            raise JaneoxError(
                f"the prompt has {len(ids)} tokens; the model's context is {self.backend.capacity}: shorten it"
            )
        vocab_size = self.backend.config.vocab_size
        for what, some in (("prompt", ids), ("logit_bias", sampling.logit_bias)):
            if some and not 0 <= min(some) <= max(some) < vocab_size:
                raise JaneoxError(f"{what}: an id lies outside the model's vocabulary of {vocab_size}")
        if sampling.stop and self.tokenizer is None:
            raise JaneoxError("stop strings need an engine with a tokenizer")

    def cancel(self, generated: Generated) -> None:
        """Ends a text where it is; one that is finished stays as it is."""
        if generated.finish_reason is None:
            self._finish(generated, "cancelled")

    def step(self) -> list[Generated]:
        """Advances the running texts by one pass of the backend; returns those that have a new token.

        Raises:
            JaneoxError: the model's logits are not numbers. The texts that ran are cancelled.
        """
        while self.waiting and self._slots.free:
            text = self.waiting.popleft()
            writer = self._writers[text]
            writer.slot, writer.cached = self._slots.take(text.prompt)
            self.running.append(text)
        plain: list[tuple[Writer, Row]] = []
        guessing: list[tuple[Writer, Row]] = []
        portion = PROMPT_TOKENS
        for generated in self.running:
            writer = self._writers[generated]
            ids = writer.next_ids(portion)
            if writer.cached < len(generated.prompt):
                portion -= len(ids)
            else:
                ids = [*ids, *self._guess(writer)]
            if ids:
                drafted = writer.cached >= len(generated.prompt) and len(ids) > 1
                (guessing if drafted else plain).append((writer, Row(writer.slot, writer.cached, ids)))
        try:
            return self._advance(plain, every=False) + self._advance(guessing, every=True)
        except JaneoxError:
            for generated in list(self.running):
                self.cancel(generated)
            raise

    def _guess(self, writer: Writer) -> list[int]:
        text = writer.generated
        room = min(text.sampling.max_new_tokens - len(text.ids), self.backend.capacity - writer.cached) - 1
        return writer.lookup.guess()[: max(0, room)]

    def _advance(self, work: list[tuple[Writer, Row]], every: bool) -> list[Generated]:
        """One pass; then each text whose prompt is done gets its next token, or as many as were guessed rightly."""
        if not work:
            return []
        logits = self.backend.forward([row for _, row in work], every)
        places, first = [], 0  # (writer, guessed ids, where its logits begin)
        for writer, row in work:
            self._slots.wrote(row)
            writer.cached += 1 if every else len(row.ids)
            if writer.cached >= len(writer.generated.prompt):
                places.append((writer, row.ids[1:] if every else [], first))
            first += len(row.ids) if every else 1
        kinds: dict[str, list[tuple[Writer, list[int], int]]] = {}
        for writer, guess, place in places:
            kinds.setdefault(writer.kind, []).append((writer, list(guess), place))
        for same in kinds.values():
            self._choose(same, logits)
        return [writer.generated for writer, _, _ in places]

    @torch.inference_mode()
    def _choose(self, texts: list[tuple[Writer, list[int], int]], logits: Tensor) -> None:
        """Draws the next tokens of texts of one kind."""
        places = [place + ahead for _, guess, place in texts for ahead in range(len(guess) + 1)]
        own = logits if places == list(range(len(logits))) else logits[places]  # (B, V), a row for each guess too
        chosen = self._draw([(writer, guess[:n]) for writer, guess, _ in texts for n in range(len(guess) + 1)], own)
        total = own.logsumexp(1)
        num_top = min(texts[0][0].generated.sampling.top_logprobs, own.shape[1])
        top = own.topk(num_top)
        top_ids, top_logprobs = top.indices.tolist(), (top.values - total[:, None]).tolist()
        ids, logprobs = chosen.tolist(), (own.gather(1, chosen[:, None])[:, 0] - total).tolist()
        at = 0
        for writer, guess, _ in texts:
            right = 0
            while True:
                if math.isnan(logprobs[at + right]):
                    raise JaneoxError("the model's logits are not numbers: its weights are damaged")
                if num_top:
                    found = zip(top_ids[at + right], top_logprobs[at + right], strict=True)
                    writer.generated.top_logprobs.append(list(found))
                id = ids[at + right]
                self._append(writer, id, logprobs[at + right])
                if writer.generated.finish_reason or right == len(guess) or id != guess[right]:
                    break
                right += 1
            writer.cached += right
            writer.lookup.learn(len(guess), right)
            at += len(guess) + 1

    def _draw(self, rows: list[tuple[Writer, list[int]]], logits: Tensor) -> Tensor:
        """(B,) ids; each row is a text of one kind and the guessed ids that are taken for given."""
        sampling, device = rows[0][0].generated.sampling, logits.device
        ids, lengths = torch.empty(0, 0, dtype=torch.long), torch.empty(0)
        if needs_history(sampling):
            seen = [torch.tensor([*w.generated.prompt, *w.generated.ids, *guess]) for w, guess in rows]
            ids, lengths = pad_sequence(seen, batch_first=True), torch.tensor([len(some) for some in seen])
        num_new = torch.tensor([len(w.generated.ids) + len(guess) for w, guess in rows])
        logits = next_token_logits(
            logits, ids.to(device), lengths.to(device), num_new.to(device), sampling, self.eos_token_id
        )
        if sampling.temperature == 0:
            return logits.argmax(1)
        uniform = [writer.uniform(len(guess)) for writer, guess in rows]
        return draw(logits, torch.tensor(uniform, dtype=torch.float64, device=device))

    def _append(self, writer: Writer, id: int, logprob: float) -> None:
        text = writer.generated
        text.logprobs.append(logprob)
        stopped = writer.push(id)
        if stopped or id == self.eos_token_id:
            self._finish(text, "stop")
        elif len(text.ids) == text.sampling.max_new_tokens or len(text.prompt) + len(text.ids) > self.backend.capacity:
            self._finish(text, "length")

    def _finish(self, text: Generated, reason: FinishReason) -> None:
        text.finish_reason = reason
        writer = self._writers.pop(text)
        writer.close()
        if text in self.running:
            self.running.remove(text)
            self._slots.release(writer.slot)
        else:
            self.waiting.remove(text)
