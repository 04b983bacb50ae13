"""A language model as one object: `lm = janeox.load("folder or Hub id")`, then generate, stream, perplexity."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, overload

from janeox import device as devices
from janeox.config import SamplingConfig
from janeox.engine.generation import Generation, StopScanner
from janeox.errors import JaneoxError
from janeox.evaluate.score import GPTNeoXScorer, Score, score_texts
from janeox.model import GPTNeoX
from janeox.tokenizer import StreamDecoder, Tokenizer
from janeox.weights import resolve


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
            sampling: fields of `SamplingConfig`: max_new_tokens, min_new_tokens, temperature (0 for the likeliest),
                top_k, top_p, repetition_penalty, stop, seed.

        Raises:
            JaneoxError: an unknown or meaningless setting, or a text longer than the model's context.
        """
        if isinstance(text, str):
            return "".join(self.stream(text, **sampling))
        parts: list[list[str]] = [[] for _ in text]
        for row, part in self._parts(text, sampling):
            parts[row].append(part)
        return list(map("".join, parts))

    def stream(self, text: str, **sampling: Any) -> Iterator[str]:
        """The same continuation as `generate`, in pieces of whole characters as they come."""
        for _, part in self._parts([text], sampling):
            yield part

    def _parts(self, texts: list[str], sampling: dict[str, Any]) -> Iterator[tuple[int, str]]:
        """(row, new text) as the rows advance."""
        config = _sampling(sampling)
        generation = Generation(self.model, [self.tokenizer.encode(text) for text in texts], config)
        decoders = [StreamDecoder(self.tokenizer) for _ in texts]
        scanners = [StopScanner(config.stop) for _ in texts]
        for step in generation:
            for row, token in step.items():
                part = scanners[row].push(decoders[row].push(token))
                if part:
                    yield row, part
                if scanners[row].stopped:
                    generation.finish(row)
        for row, (decoder, scanner) in enumerate(zip(decoders, scanners, strict=True)):
            rest = scanner.push(decoder.flush()) + scanner.flush()
            if rest:
                yield row, rest

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
