"""Continuous batching: texts join and leave between steps, and none of them changes another.

Each step hands the backend, for every running text, the ids that its slot does not hold yet: one for a text that is
being written, a portion of the prompt for one that has just come, and perhaps a guess at what follows. Then the next
tokens are chosen, by random numbers that are a text's own, so that a seed gives the same text alone or in any batch,
and with guesses or without.
"""

import math
from collections import deque
from collections.abc import Sequence

import torch

from janeox.config import SamplingConfig
from janeox.engine.backend import Backend, DeviceBackend, Row
from janeox.engine.choosing import Choice, Chooser
from janeox.engine.draft import Draft
from janeox.engine.native_backend import one_torch_thread
from janeox.engine.slots import SHORTEST, Slots
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
        draft: a smaller model of the same vocabulary that guesses (`num_assistant_tokens`), with as many slots.
    """

    def __init__(self, backend: Backend, tokenizer: Tokenizer | None = None, draft: Backend | None = None):
        self.backend, self.tokenizer = backend, tokenizer
        self.draft = None if draft is None else Draft(draft)
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
        self._admit()
        guesses = self._guesses()
        reading: list[tuple[Writer, Row]] = []
        plain: list[tuple[Writer, Row]] = []
        guessing: list[tuple[Writer, Row]] = []
        portion = PROMPT_TOKENS
        for generated in self.running:
            writer = self._writers[generated]
            if writer.cached < len(generated.prompt):
                ids = generated.prompt[writer.cached : writer.cached + portion]
                portion -= len(ids)
                if ids:
                    reading.append((writer, Row(writer.slot, writer.cached, ids)))
            else:
                ids = [*generated.ids[-1:], *guesses.get(writer, ())]
                (guessing if len(ids) > 1 else plain).append((writer, Row(writer.slot, writer.cached, ids)))
        try:
            with one_torch_thread(self.backend):
                if isinstance(self.backend, DeviceBackend) and self.backend.ahead > 1 and not reading and not guessing:
                    return self._run_ahead(self.backend, plain)
                return self._advance(reading + plain, every=False) + self._advance(guessing, every=True)
        except JaneoxError:
            for generated in list(self.running):
                self.cancel(generated)
            raise

    def _admit(self) -> None:
        """Gives free slots to texts that wait, in their order. One whose prompt, but for its end, another has begun to
        read stays behind until it has been read, and is then given a copy."""
        reading = {
            tuple(text.prompt[:-1]) for text in self.running if self._writers[text].cached < len(text.prompt) - 1
        }
        behind: list[Generated] = []
        while self.waiting and self._slots.free:
            text = self.waiting.popleft()
            beginning = tuple(text.prompt[:-1])
            if beginning in reading and len(beginning) >= SHORTEST:
                behind.append(text)
                continue
            writer = self._writers[text]
            writer.slot, writer.cached = self._slots.take(text.prompt)
            if writer.cached < len(beginning):
                reading.add(beginning)
            self.running.append(text)
        self.waiting.extendleft(reversed(behind))

    def _guesses(self) -> dict[Writer, list[int]]:
        """What may come next in the texts that are being written, by those that guess."""
        found: dict[Writer, list[int]] = {}
        drafted: list[tuple[Writer, int]] = []
        for text in self.running:
            writer = self._writers[text]
            left = min(text.sampling.max_new_tokens - len(text.ids), self.backend.capacity - writer.cached) - 1
            length = min(writer.pace.length, left) if writer.cached >= len(text.prompt) else 0
            if length > 0 and writer.lookup:
                found[writer] = writer.lookup.guess(length)
            elif length > 0 and self.draft:
                drafted.append((writer, length))
        if self.draft and drafted:
            found |= zip((writer for writer, _ in drafted), self.draft.guess(drafted), strict=True)
        return found

    @torch.inference_mode()
    def _advance(self, work: list[tuple[Writer, Row]], every: bool) -> list[Generated]:
        """One pass; then each text whose prompt is done gets its next token, or as many as were guessed rightly."""
        if not work:
            return []
        logits = self.backend.forward([row for _, row in work], every)
        texts: list[tuple[Writer, list[int]]] = []  # with the ids that are guessed to come first
        places: list[int] = []  # of their logits
        first = 0
        for writer, row in work:
            self._slots.wrote(row)
            writer.cached += 1 if every else len(row.ids)
            if writer.cached >= len(writer.generated.prompt):
                guess = list(row.ids[1:]) if every else []
                texts += [(writer, guess[:number]) for number in range(len(guess) + 1)]
                places += range(first, first + len(guess) + 1)
            first += len(row.ids) if every else 1
        if not texts:
            return []
        own = logits if places == list(range(len(logits))) else logits[places]  # (B, V)
        chooser = Chooser(texts, self.eos_token_id, own.device)
        chooser.choose(own)
        choices: dict[Writer, list[Choice]] = {}
        for (writer, _), (choice,) in zip(texts, chooser.choices(), strict=True):
            choices.setdefault(writer, []).append(choice)
        for writer, guess in dict(texts).items():  # the longest of each
            right = self._accept(writer, choices[writer], guess)
            writer.cached += right
            writer.pace.learn(len(guess), right)
        return [writer.generated for writer in choices]

    @torch.inference_mode()
    def _run_ahead(self, backend: DeviceBackend, work: list[tuple[Writer, Row]]) -> list[Generated]:
        """Several tokens of each text before the host looks at them; what comes after a text's end is forgotten."""
        texts, rows = zip(*work, strict=True)
        left = max(writer.generated.sampling.max_new_tokens - len(writer.generated.ids) for writer in texts)
        steps = min(backend.ahead, left)
        columns = [[row.slot for row in rows], [row.start for row in rows], [row.ids[0] for row in rows]]
        slots, positions, ids = torch.tensor(columns, device=backend.device)
        chooser = Chooser([(writer, ()) for writer in texts], self.eos_token_id, backend.device, steps)
        for _ in range(steps):
            ids = chooser.choose(backend.decode(slots, positions, ids))
            positions = positions + 1
        for writer, row, choices in zip(texts, rows, chooser.choices(), strict=True):
            chosen = [choice.id for choice in choices[:-1]]
            self._slots.wrote(Row(row.slot, row.start, [*row.ids, *chosen][: backend.capacity - row.start]))
            writer.cached += 1 + self._accept(writer, choices, chosen)
        return [writer.generated for writer in texts]

    def _accept(self, writer: Writer, choices: list[Choice], guess: Sequence[int]) -> int:
        """Adds the first choice, and each next one as long as the guess before it was right; how many were."""
        for number, choice in enumerate(choices):
            if math.isnan(choice.logprob):
                raise JaneoxError("the model's logits are not numbers: its weights are damaged")
            if choice.top:
                writer.generated.top_logprobs.append(choice.top)
            self._append(writer, choice.id, choice.logprob)
            if writer.generated.finish_reason or number == len(guess) or choice.id != guess[number]:
                return number
        return len(guess)

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
