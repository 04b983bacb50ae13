"""Our models in EleutherAI's lm-evaluation-harness, through a generation backend.

What makes it fast: the continuations of one context share it (it is computed once, also where contexts only begin
alike), logits are computed for the tokens that are asked about, and texts of like length go together.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences
from torch import Tensor

from janeox.config import SamplingConfig
from janeox.engine.backend import Backend, Row
from janeox.engine.engine import Engine
from janeox.engine.native_backend import one_torch_thread
from janeox.engine.text import Generated
from janeox.errors import JaneoxError
from janeox.evaluate.backend import BackendScorer
from janeox.evaluate.score import Window, read
from janeox.progress import progress
from janeox.tokenizer import Tokenizer

T = TypeVar("T")
Answer = tuple[float, bool]
"""log p of a continuation, and whether greedy decoding would have written it."""


class Question(NamedTuple):
    """A context, and the continuations that are asked about."""

    context: tuple[int, ...]
    continuations: dict[tuple[int, ...], list[int]]
    """Continuation → numbers of the requests that ask for it."""


class JaneoxLM(TemplateLM):
    """A backend and its tokenizer as a model of the harness.

    Args:
        backend: with slots for at least two texts.
    """

    def __init__(self, backend: Backend, tokenizer: Tokenizer):
        super().__init__()
        self.model, self.tokenizer = backend, tokenizer
        self.max_length = backend.capacity

    @property
    def eot_token_id(self) -> int:
        return self.model.config.eos_token_id

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_options: Any) -> list[int]:
        """<NL> in a prompt is the series' newline and nothing else; where it is a control piece, it is meant as one."""
        return self.tokenizer.encode(string, special="<NL>" in string)

    def tok_decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        texts = [torch.tensor(self.tok_encode(request.args[0])) for request in requests]
        window = Window(self.max_length, self.max_length)  # as the harness: windows that do not overlap
        losses = read(BackendScorer(self.model, self.tokenizer), texts, window)
        return [-nll.sum().item() for nll in losses]

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_options: Any
    ) -> list[Answer]:
        questions: dict[tuple[int, ...], Question] = {}
        for number, (_, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise JaneoxError(f"a choice has {len(continuation)} tokens, the model's context {self.max_length}")
            whole = [*context, *continuation][-(self.max_length + 1) :]  # the last token is predicted, not read
            known = tuple(whole[: len(whole) - len(continuation)])
            question = questions.setdefault(known, Question(known, {}))
            question.continuations.setdefault(tuple(continuation), []).append(number)
        answers: list[Answer] = [(0.0, False)] * len(requests)
        shown = not disable_tqdm
        with one_torch_thread(self.model), progress("questions", len(questions), "questions", shown=shown) as bar:
            for group in self._groups(questions.values()):
                for question, found in zip(group, self._ask(group), strict=True):
                    for answer, numbers in zip(found, question.continuations.values(), strict=True):
                        for number in numbers:
                            answers[number] = answer
                bar.advance(len(group))
        return answers

    def _groups(self, questions: Iterable[Question]) -> Iterator[list[Question]]:
        """Questions that are asked together: of like length, one slot each, one more for what they begin with alike."""
        ordered = sorted(questions, key=lambda question: (-len(question.context), question.context))
        yield from portions(ordered, max(1, self.model.num_slots // 2))

    def _ask(self, group: list[Question]) -> list[list[Answer]]:
        contexts = [question.context for question in group]
        # The last token of a context is always read anew: its logits are asked for.
        shared = min(common(min(contexts), max(contexts)), min(map(len, contexts)) - 1) if len(group) > 1 else 0
        spare = len(group)
        if shared:
            self.model.forward([Row(spare, 0, contexts[0][:shared])])
            for slot in range(len(group)):
                self.model.copy(spare, slot, shared)
        first = log_softmax(self.model.forward([Row(slot, shared, ids[shared:]) for slot, ids in enumerate(contexts)]))
        tails = self._tails(group, spare)
        return [
            [
                answer(continuation, torch.cat((first[slot : slot + 1], tails[slot, continuation])))
                for continuation in question.continuations
            ]
            for slot, question in enumerate(group)
        ]

    def _tails(self, group: list[Question], spare: int) -> dict[tuple[int, tuple[int, ...]], Tensor]:
        """(slot, continuation) → log p (tokens − 1, V) of what follows each of its tokens but the last."""
        wanted = [(slot, ids) for slot, question in enumerate(group) for ids in question.continuations]
        none = torch.empty(0, self.model.config.vocab_size)
        found = {one: none for one in wanted if len(one[1]) == 1}
        for part in portions([one for one in wanted if len(one[1]) > 1], self.model.num_slots - spare):
            rows = []
            for target, (slot, ids) in enumerate(part, spare):
                start = len(group[slot].context)
                self.model.copy(slot, target, start)
                rows.append(Row(target, start, ids[:-1]))
            logits = log_softmax(self.model.forward(rows, every=True)).split([len(row.ids) for row in rows])
            found |= dict(zip(part, logits, strict=True))
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers."""
        engine = Engine(self.model, self.tokenizer)
        asked = [self._asked(*request.args) for request in requests]
        written: dict[int, Generated] = {}
        for number in sorted(range(len(asked)), key=lambda number: -len(asked[number][0])):
            written[number] = engine.submit(*asked[number])
        shown = not disable_tqdm
        with progress("answers", len(requests), "answers", shown=shown) as bar:
            while not engine.idle:
                bar.advance(sum(text.finish_reason is not None for text in engine.step()))
        return [written[number].text for number in range(len(requests))]

    def _asked(self, context: str, options: dict[str, Any]) -> tuple[list[int], SamplingConfig]:
        if options.get("do_sample") or options.get("temperature"):
            raise JaneoxError(f"the harness asks for sampling ({options}); its tasks are answered greedily here")
        room = int(options.get("max_gen_toks", 256))
        if not 1 <= room < self.max_length:
            raise JaneoxError(f"max_gen_toks = {room}: must lie between 1 and the context of {self.max_length} tokens")
        stop = tuple(filter(None, handle_stop_sequences(options.get("until"), eos=None)))
        ids = self.tok_encode(context)[-(self.max_length - room) :]
        return ids, SamplingConfig(max_new_tokens=room, temperature=0, stop=stop)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of what both begin with; for the least and the greatest of some, of what all begin with."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def portions(items: list[T], size: int) -> Iterator[list[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def log_softmax(logits: Tensor) -> Tensor:
    """(rows, V) float32 on the CPU."""
    return logits.float().log_softmax(-1).cpu()


def answer(continuation: Sequence[int], logprobs: Tensor) -> Answer:
    """Of log p (tokens, V) of what follows each token of the context's end and of the continuation but its last."""
    ids = torch.tensor(continuation)
    return logprobs.gather(1, ids[:, None]).double().sum().item(), bool((logprobs.argmax(1) == ids).all())
