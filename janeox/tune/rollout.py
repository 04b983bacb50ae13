"""Replies to prompts with everything that PPO learns from: sampled ids as they are, scores, log-probabilities, values.

What the model wrote is never decoded and read again: other ids can spell the same text.
"""

import copy
import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from janeox.config import SamplingConfig
from janeox.dialogue import reply_text
from janeox.engine.backend import Backend
from janeox.engine.engine import Engine
from janeox.engine.native_backend import NativeBackend, why_not
from janeox.engine.torch_backend import TorchBackend
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.tokenizer import Tokenizer
from janeox.train.parallel import World
from janeox.tune.pairs import replies_batch
from janeox.tune.reward_model import RewardModel

Scorer = Callable[[list[list[int]], list[list[int]]], list[float]]
"""(prompts, replies) as ids → a score a reply."""


class Reply(NamedTuple):
    prompt: list[int]
    ids: list[int]
    """As sampled; the last is `</s>` where the model ended by itself."""
    logprobs: list[float]
    """Of `ids`, as the engine saw them."""


class Writer:
    """Writes replies with a model as it is at the moment. On a CPU its kernels are the native ones.

    Args:
        num_slots: replies at once.
        capacity: tokens of prompt and reply.
        dtype: of the native kernels, float32 or bfloat16.
    """

    def __init__(self, model: GPTNeoX, num_slots: int, capacity: int, dtype: torch.dtype = torch.float32):
        self.backend: Backend
        if model.device.type == "cpu" and why_not(model.config) is None:
            rounded = model if dtype == model.dtype else copy.deepcopy(model).to(dtype)
            self.backend = NativeBackend.from_model(rounded, num_slots, capacity, bits=torch.finfo(dtype).bits)
        else:
            self.backend = TorchBackend(model, num_slots, capacity)

    def write(
        self,
        model: GPTNeoX,
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        max_tokens: int,
        temperature: float = 1.0,
    ) -> list[Reply]:
        """A reply to each prompt, drawn with its seed."""
        if isinstance(self.backend, NativeBackend):
            self.backend.refresh(model)
        engine = Engine(self.backend)
        texts = [
            engine.submit(prompt, SamplingConfig(max_new_tokens=max_tokens, temperature=temperature, seed=seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        while not engine.idle:
            engine.step()
        return [Reply(text.prompt, text.ids, text.logprobs) for text in texts]


def open_reward(name: str, tokenizer: Tokenizer, rows: int, device: torch.device) -> Scorer:
    """A reward-model folder, or a Python function `module:function` of the replies' texts.

    Raises:
        JaneoxError: nothing of that name, or a reward model of another tokenizer. Calling the scorer: the function
            raised, or returned another number of scores or one that is not finite; names the reply.
    """
    if Path(name).is_dir():
        model = RewardModel.from_pretrained(name, torch.float32).to(device)
        if Tokenizer.load(name).fingerprint != tokenizer.fingerprint:
            raise JaneoxError(f"{name}: was made with another tokenizer than the model that is to be tuned")
        return lambda prompts, replies: _model_scores(model, prompts, replies, rows)
    module, _, function = name.partition(":")
    try:
        call = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise JaneoxError(f"reward = {name!r}: no such folder, and no such function ({error})") from error
    return lambda prompts, replies: checked_scores(call, name, [reply_text(tokenizer.decode(ids)) for ids in replies])


@torch.no_grad()
def _model_scores(model: RewardModel, prompts: list[list[int]], replies: list[list[int]], rows: int) -> list[float]:
    scores: list[float] = []
    pairs = list(zip(prompts, replies, strict=True))
    for start in range(0, len(pairs), rows):
        batch = replies_batch(pairs[start : start + rows], 0)
        scores += model.scores(batch["ids"].to(model.device), batch["targets"].to(model.device)).tolist()
    return scores


def checked_scores(call: Callable[[list[str]], Any], name: str, texts: list[str]) -> list[float]:
    """What a reward function says of texts, as finite floats.

    Raises:
        JaneoxError: see `open_reward`.
    """
    try:
        scores = list(call(list(texts)))
    except Exception as error:
        raise JaneoxError(f"the reward function {name} raised {type(error).__name__}: {error}") from error
    if len(scores) != len(texts):
        raise JaneoxError(f"the reward function {name} returned {len(scores)} scores for {len(texts)} replies")
    found = []
    for row, (score, text) in enumerate(zip(scores, texts, strict=True)):
        try:
            number = float(score)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise JaneoxError(f"the reward function {name} gave {score!r} to reply {row}: {text[:80]!r}")
        found.append(number)
    return found


def gathered(own: list[Any], world: World) -> list[Any]:
    """The lists of all processes, end to end, on every process."""
    if world.size == 1:
        return own
    parts: list[Any] = [None] * world.size
    dist.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def padded(rows: Sequence[Tensor], T: int) -> Tensor:
    """(T_i,) tensors as (B, T), 0 behind each."""
    return torch.stack([torch.nn.functional.pad(row, (0, T - len(row))) for row in rows])
