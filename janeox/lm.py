"""A language model as one object: `lm = janeox.load("folder or Hub id")`, then generate, stream, perplexity."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, overload

from janeox import device as devices
from janeox.config import SamplingConfig
from janeox.engine.backend import Backend
from janeox.engine.engine import Engine
from janeox.engine.text import FinishReason, Generated
from janeox.engine.torch_backend import TorchBackend
from janeox.errors import JaneoxError
from janeox.evaluate.score import GPTNeoXScorer, Score, score_texts
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer
from janeox.weights import resolve

SLOTS = 32  # texts written at once by `complete`; more wait until one ends


class Completion(NamedTuple):
    """What a prompt was continued with."""

    ids: list[int]
    """The sampled ids; the last is `</s>` where the model ended the text."""
    text: str
    """Up to a stop string, without it."""
    finish_reason: FinishReason
    logprobs: list[float]
    """log p of each of `ids` under the model itself, before temperature and filters."""


class LM:
    """A model and its tokenizer.

    Raises:
        JaneoxError: the tokenizer has more pieces than the model has rows.
    """

    def __init__(self, model: GPTNeoX, tokenizer: Tokenizer):
        if tokenizer.vocab_size > model.config.vocab_size:
            raise JaneoxError(
                f"the tokenizer has {tokenizer.vocab_size} pieces, the model only {model.config.vocab_size}: "
                "they do not belong together"
            )
        self.model, self.tokenizer = model, tokenizer

    @overload
    def generate(self, text: str, **sampling: Any) -> str: ...
    @overload
    def generate(self, text: list[str], **sampling: Any) -> list[str]: ...
    def generate(self, text: str | list[str], **sampling: Any) -> str | list[str]:
        """The continuation of a text, or of each of several texts in one batch, without the text itself.

        Args:
            sampling: fields of `SamplingConfig`, such as max_new_tokens, temperature (0 for the likeliest), top_p,
                repetition_penalty, stop, seed.

        Raises:
            JaneoxError: an unknown or meaningless setting, or a text longer than the model's context.
        """
        if isinstance(text, str):
            return self.complete([text], **sampling)[0].text
        return [completion.text for completion in self.complete(text, **sampling)]

    def complete(self, prompts: list[str] | list[list[int]], **sampling: Any) -> list[Completion]:
        """As `generate`, of texts or of ids, with what there is to know about each continuation.

        Copies of a prompt differ: the n-th counts n on from the seed.

        Raises:
            JaneoxError: as `generate`.
        """
        config = _sampling(sampling)
        encoded = [self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        engine = self.engine(min(len(prompts), SLOTS), self._room(encoded, config))
        copies: dict[tuple[int, ...], int] = {}
        texts = []
        for ids in encoded:
            copy = copies[tuple(ids)] = copies.get(tuple(ids), -1) + 1
            seed = None if config.seed is None else (config.seed + copy) % 2**63
            texts.append(engine.submit(ids, replace(config, seed=seed)))
        while not engine.idle:
            engine.step()
        return [_completion(text) for text in texts]

    def stream(self, text: str, **sampling: Any) -> Iterator[str]:
        """The same continuation as `generate`, in pieces of whole characters as they come."""
        config, ids = _sampling(sampling), self.tokenizer.encode(text)
        engine = self.engine(1, self._room([ids], config))
        generated, shown = engine.submit(ids, config), 0
        while generated.finish_reason is None:
            engine.step()
            if len(generated.text) > shown:
                yield generated.text[shown:]
                shown = len(generated.text)

    def engine(self, num_slots: int = SLOTS, capacity: int | None = None) -> Engine:
        """A new engine for this model, which writes `num_slots` texts at once.

        Args:
            capacity: the most tokens of a text, prompt included; the model's context by default.
        """
        return Engine(
            self._backend(max(1, num_slots), capacity or self.model.config.max_position_embeddings), self.tokenizer
        )

    def _backend(self, num_slots: int, capacity: int) -> Backend:
        """The one place where a backend is chosen."""
        return TorchBackend(self.model, num_slots, capacity)

    def _room(self, prompts: list[list[int]], sampling: SamplingConfig) -> int:
        """Tokens that the longest of the texts can come to."""
        context, longest = self.model.config.max_position_embeddings, max(map(len, prompts), default=0)
        return context if longest >= context else min(context, max(1, longest) + sampling.max_new_tokens)

    def scores(self, texts: Iterable[str], stride: int | None = None) -> Iterator[Score]:
        """Negative log-likelihood of each text by itself, in their order; see `evaluate.score_texts`."""
        return score_texts(GPTNeoXScorer(self.model, self.tokenizer), texts, stride)

    def score(self, texts: str | Iterable[str], stride: int | None = None) -> Score:
        """The sum of `scores`."""
        return sum(self.scores([texts] if isinstance(texts, str) else texts, stride), Score())

    def perplexity(self, texts: str | Iterable[str], stride: int | None = None) -> float:
        """exp(ΣNLL / Σtokens) over whole texts, each by itself."""
        return self.score(texts, stride).perplexity


def _sampling(values: dict[str, Any]) -> SamplingConfig:
    stop = values.get("stop", ())
    values = values | {"stop": (stop,) if isinstance(stop, str) else tuple(stop)}
    try:
        return SamplingConfig(**values)
    except TypeError as error:
        known = ", ".join(SamplingConfig.__dataclass_fields__)
        raise JaneoxError(f"{error}; settings of generate are {known}") from error


def _completion(text: Generated) -> Completion:
    if text.finish_reason is None:
        raise RuntimeError("the text is still being written")
    return Completion(text.ids, text.text, text.finish_reason, text.logprobs)


def load(name: str | Path, *, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> LM:
    """Opens a model folder or a Hugging Face Hub id with its tokenizer.

    Args:
        device: auto, cpu, cuda, cuda:0, mps.
        dtype: auto, float32, float16, bfloat16; auto keeps the stored half precision where the hardware is fast in it.

    Raises:
        JaneoxError: nothing of that name, no weights, no `spiece.model`, or parts that do not fit each other.
    """
    folder = resolve(name, revision)
    tokenizer = Tokenizer.load(folder)
    where = devices.pick_device(device)
    model = GPTNeoX.from_pretrained(folder)
    model = model.to(where, devices.pick_dtype(dtype, where, stored=model.dtype))
    return LM(model, tokenizer)


def newest_model() -> Path:
    """The model folder of the run under `runs/` that was saved last.

    Raises:
        JaneoxError: there is none.
    """
    found = sorted(Path("runs").glob("*/model/config.json"), key=lambda file: file.stat().st_mtime)
    if not found:
        raise JaneoxError("no model under runs/ here; name one with --model FOLDER_OR_HUB_ID, or train one: janeox run")
    print(f"model: {found[-1].parent}", file=sys.stderr)
    return found[-1].parent
