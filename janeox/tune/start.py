"""What the stages of the series share: opening the model to begin with, and writing one that can be talked to."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from janeox.dialogue import CHAT_TEMPLATE, Message, prompt_text, reply_text
from janeox.errors import JaneoxError
from janeox.lm import LM, newest_model
from janeox.model import GPTNeoX
from janeox.settings.tune import Tune
from janeox.tokenizer import Tokenizer
from janeox.train.parallel import World, check_rows
from janeox.train.pretrain import check_same_run
from janeox.weights import resolve

# Settings that may change between two starts of one run.
FREE = {"train.device", "train.compile", "train.save_every", "train.evaluate_every", "train.sample_every",
        "train.sample_prompt", "train.log_every", "out"}  # fmt: skip


def open_run(settings: Any, world: World) -> tuple[GPTNeoX, Tokenizer]:
    """The model that the run begins with, in float32 on the CPU, all of it to be trained, and its tokenizer.

    Raises:
        JaneoxError: no data is named, no such model, or `out` holds a run with other settings.
    """
    if not settings.data:
        raise JaneoxError("no data: name JSONL files with --data, or data = [...] in a recipe")
    check_rows(settings.batch_rows, world)
    settings.model = settings.model or str(newest_model())
    folder = resolve(settings.model)
    tokenizer = Tokenizer.load(folder)
    model = GPTNeoX.from_pretrained(folder, torch.float32)
    LM(model, tokenizer)  # checks that they belong together
    check_same_run(settings, FREE, world)
    return model.requires_grad_(True), tokenizer


def write_dialogue_model(
    model: GPTNeoX, tokenizer: Tokenizer, dtype: str, folder: Path, weights: dict[str, Tensor]
) -> None:
    """A complete folder whose tokenizer has the series' chat template."""
    model.write_files(folder, getattr(torch, dtype), weights)
    tokenizer.save(folder, CHAT_TEMPLATE)


def sample_reply(lm: LM, settings: Tune, step: int) -> str:
    """A question and what the model as it is answers."""
    prompt = settings.train.sample_prompt
    written = lm.generate(prompt_text([Message("user", prompt)]), max_new_tokens=60, temperature=0.8, seed=step)
    return f"{prompt} → {reply_text(written)}"


def fingerprint(tokenizer: Tokenizer, arrays: Sequence[Sequence[int]]) -> str:
    """16 hexadecimal digits that name encoded data."""
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    for array in arrays:
        digest.update(np.asarray(array, np.int64).tobytes())
        digest.update(b";")
    return digest.hexdigest()[:16]


class Shuffled:
    """Which rows a step takes: every row once an epoch, in an order that is a function of seed and epoch.

    Args:
        num_rows: in all.
        batch_rows: a step.
    """

    def __init__(self, num_rows: int, batch_rows: int, seed: int):
        self.num_rows, self.batch_rows, self.seed = num_rows, batch_rows, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def num_steps(self, epochs: float) -> int:
        return max(1, round(epochs * self.num_rows / self.batch_rows))

    def rows(self, step: int, world: World) -> list[int]:
        """This process's share of a step's rows."""
        share = self.batch_rows // world.size
        first = step * self.batch_rows + world.rank * share
        return [self._row(place) for place in range(first, first + share)]

    def _row(self, place: int) -> int:
        epoch, at = divmod(place, self.num_rows)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)
        return int(self._order[at])
