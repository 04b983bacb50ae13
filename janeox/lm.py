"""A language model as one object: `lm = janeox.load("folder or Hub id")`, then generate, stream, perplexity."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from janeox import device as devices
from janeox.config import SamplingConfig
from janeox.engine import gpu_backend
from janeox.engine.backend import Backend
from janeox.engine.beam import beam_search
from janeox.engine.engine import Engine
from janeox.engine.gpu_weights import quantise
from janeox.engine.native_backend import NativeBackend, pack_model, why_not
from janeox.engine.packed_file import FILE as PACKED_FILE
from janeox.engine.packed_file import read_packed
from janeox.engine.packing import packed_bits
from janeox.engine.text import FinishReason, Generated
from janeox.engine.torch_backend import TorchBackend
from janeox.errors import JaneoxError
from janeox.evaluate.backend import BackendScorer
from janeox.evaluate.score import GPTNeoXScorer, Score, Scorer, score_texts
from janeox.model import GPTNeoX, read_config
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

    Args:
        pack: where the native kernels are to generate: gives the weights as they read them, at first use. The model's
            own are then not read, and of a folder that `janeox quantize` wrote there are none.
        bits: of those weights.

    Raises:
        JaneoxError: the tokenizer has more pieces than the model has rows.
    """

    assistant: "LM | None" = None
    """A smaller model that guesses what comes next (`num_assistant_tokens`)."""

    def __init__(
        self, model: GPTNeoX, tokenizer: Tokenizer, pack: Callable[[], dict[str, Tensor]] | None = None, bits: int = 16
    ):
        if tokenizer.vocab_size > model.config.vocab_size:
            raise JaneoxError(
                f"the tokenizer has {tokenizer.vocab_size} pieces, the model only {model.config.vocab_size}: "
                "they do not belong together"
            )
        self.model, self.tokenizer, self.bits = model, tokenizer, bits
        self._pack = None if pack is None else cache(pack)

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
        if config.num_beams > 1:
            return [_completion(self._search(ids, config)) for ids in encoded]
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
        shown = 0
        for generated in self.follow(text, **sampling):
            if len(generated.text) > shown:
                yield generated.text[shown:]
                shown = len(generated.text)

    def follow(self, text: str, **sampling: Any) -> Iterator[Generated]:
        """The same continuation after each step: one object that grows."""
        config, ids = _sampling(sampling), self.tokenizer.encode(text)
        if config.num_beams > 1:  # which text it will be is known at its end
            yield self._search(ids, config)
            return
        engine = self.engine(1, self._room([ids], config))
        generated = engine.submit(ids, config)
        while generated.finish_reason is None:
            engine.step()
            yield generated

    def _search(self, ids: list[int], sampling: SamplingConfig) -> Generated:
        engine = self.engine(sampling.num_beams, self._room([ids], sampling))
        engine.check(ids, sampling)
        return beam_search(engine.backend, self.tokenizer, ids or [engine.eos_token_id], sampling)

    def engine(self, num_slots: int = SLOTS, capacity: int | None = None) -> Engine:
        """A new engine for this model, which writes `num_slots` texts at once.

        Args:
            capacity: the most tokens of a text, prompt included; the model's context by default.
        """
        num_slots, capacity = max(1, num_slots), capacity or self.model.config.max_position_embeddings
        draft = None
        if self.assistant:
            context = self.assistant.model.config.max_position_embeddings
            draft = self.assistant._backend(num_slots, min(capacity, context))
        return Engine(self._backend(num_slots, capacity), self.tokenizer, draft)

    def _backend(self, num_slots: int, capacity: int) -> Backend:
        """The one place where a backend is chosen."""
        if self._pack is not None:
            return NativeBackend(self.model.config, self._pack(), num_slots, capacity)
        if gpu_backend.why_not(self.model) is None:
            return gpu_backend.GpuBackend(self.model, num_slots, capacity)
        return TorchBackend(self.model, num_slots, capacity)

    def scorer(self) -> Scorer:
        """For evaluation: quantised weights by the kernels that will run them, others by torch; but not float16 on a
        CPU, few of which multiply it: without that, torch takes hundreds of times as long as for float32."""
        if self._pack is not None and (self.bits < 16 or self.model.dtype == torch.float16):
            return BackendScorer(self._backend(8, self.model.config.max_position_embeddings), self.tokenizer)
        return GPTNeoXScorer(self.model, self.tokenizer)

    def _room(self, prompts: list[list[int]], sampling: SamplingConfig) -> int:
        """Tokens that the longest of the texts can come to."""
        context, longest = self.model.config.max_position_embeddings, max(map(len, prompts), default=0)
        return context if longest >= context else min(context, max(1, longest) + sampling.max_new_tokens)

    def scores(self, texts: Iterable[str], stride: int | None = None) -> Iterator[Score]:
        """Negative log-likelihood of each text by itself, in their order; see `evaluate.score_texts`."""
        return score_texts(self.scorer(), texts, stride)

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


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    bits: Literal[32, 16, 8, 4] | None = None,
    revision: str | None = None,
    assistant_model: str | Path | None = None,
    use_mmap: bool = False,
) -> LM:
    """Opens a model folder or a Hugging Face Hub id with its tokenizer.

    On a CPU the native kernels generate, where they were built and know the processor; elsewhere torch does.

    Args:
        device: auto, cpu, cuda, cuda:0, mps.
        dtype: auto, float32, float16, bfloat16; auto keeps the stored half precision where the hardware is fast in it.
        bits: of the weights with which the native kernels generate; None for 32 where dtype is float32, otherwise 16
            (bfloat16 where dtype is, else float16), or for those of a folder that `janeox quantize` wrote. The weights
            are packed at first use. On a GPU: 8 or 4.
        assistant_model: a smaller model with the same tokenizer, which guesses what comes next.
        use_mmap: leaves what `janeox quantize` wrote in its file, whose memory processes share. Otherwise it is read
            into larger pages, which are faster, where at least as much memory stays free.

    Raises:
        JaneoxError: nothing of that name, no weights, no `spiece.model`, parts that do not fit each other, or `bits`
            that this machine or folder does not have.
    """
    if assistant_model:
        lm = load(name, device=device, dtype=dtype, bits=bits, revision=revision, use_mmap=use_mmap)
        lm.assistant = load(assistant_model, device=device, dtype=dtype)
        known = [(some.tokenizer.surfaces, some.model.config.vocab_size) for some in (lm, lm.assistant)]
        if known[0] != known[1]:
            raise JaneoxError(f"{assistant_model}: has another vocabulary than {name}, so it cannot guess for it")
        return lm
    folder = resolve(name, revision)
    tokenizer = Tokenizer.load(folder)
    if (folder / PACKED_FILE).is_file():
        return _load_packed(folder, tokenizer, device, bits, use_mmap)
    where = devices.pick_device(device)
    model = GPTNeoX.from_pretrained(folder)
    model = model.to(where, devices.pick_dtype(dtype, where, stored=model.dtype))
    reason = why_not(model.config) if where.type == "cpu" else f"the native kernels run on a CPU, not on {where}"
    if reason is None:
        bits = bits or (32 if model.dtype == torch.float32 else 16)
        return LM(model, tokenizer, partial(pack_model, model, bits), bits)
    if bits in (8, 4) and where.type == "cuda":
        return LM(quantise(model, bits), tokenizer)
    if bits is not None:
        raise JaneoxError(f"bits = {bits}: {reason}")
    if where.type == "cpu":
        _say_once(f"torch generates, slower than the native kernels would: {reason}")
    return LM(model, tokenizer)


def _load_packed(folder: Path, tokenizer: Tokenizer, device: str, bits: int | None, use_mmap: bool) -> LM:
    """A folder that `janeox quantize` wrote."""
    with torch.device("meta"):
        model = GPTNeoX(read_config(folder))
    reason = why_not(model.config) if device in ("auto", "cpu") else f"they do not run on {device}"
    tensors = read_packed(folder, use_mmap)
    stored = packed_bits(tensors)
    if reason or bits not in (None, stored):
        raise JaneoxError(
            f"{folder}: holds weights of {stored} bits for the native kernels" + f"; {reason}" * bool(reason)
        )
    return LM(model.eval(), tokenizer, lambda: tensors, stored)


@cache
def _say_once(line: str) -> None:
    print(f"janeox: {line}", file=sys.stderr)


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
