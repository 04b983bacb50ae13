"""SFT: conversations → a model that answers. SFT-v2 is the same with another recipe."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from janeox.device import autocast
from janeox.dialogue import Encoded, encode, read_jsonl, read_messages
from janeox.errors import JaneoxError
from janeox.lm import LM
from janeox.model import GPTNeoX
from janeox.settings.tune import Sft
from janeox.tokenizer import Tokenizer
from janeox.train.loop import Task, move, split, train
from janeox.train.loss import next_token_loss
from janeox.train.parallel import join, shard
from janeox.tune import lora
from janeox.tune.start import Shuffled, fingerprint, open_run, sample_reply, write_dialogue_model


class Packed(NamedTuple):
    """Rows of several conversations, each (rows, T) int64."""

    ids: np.ndarray
    targets: np.ndarray
    """−1 where nothing is to be predicted."""
    documents: np.ndarray
    """Number of the conversation in its row; the padding at the end is one more."""


def run_sft(settings: Sft) -> None:
    """The verb `sft`.

    Raises:
        JaneoxError: a row that is no conversation (names its file and line), parts that do not fit each other, or `out`
            holds a run with other settings.
        KeyboardInterrupt: stopped by a signal, after saving.
    """
    world = join(settings.train.device)
    model, tokenizer = open_run(settings, world)
    length = min(settings.max_tokens, model.config.max_position_embeddings)
    encoded = read_conversations(tokenizer, settings.data)
    rows = pack(encoded, length, tokenizer.eos_token_id or 0, settings.train.seed)
    valid = pack(read_conversations(tokenizer, settings.valid), length, tokenizer.eos_token_id or 0, 0)
    if settings.lora_rank:
        lora.add(model, settings.lora_rank, settings.lora_alpha, settings.train.seed, settings.optim.name)
    model.to(world.device)
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shard(model, world)
    order = Shuffled(len(rows.ids), settings.batch_rows, settings.train.seed)
    write: Any = partial(write_dialogue_model, model, tokenizer, settings.train.save_dtype)
    if settings.lora_rank:
        write = partial(lora.write, settings, write)

    def validate() -> dict[str, Any]:
        with torch.no_grad(), autocast(settings.train.dtype, world.device):
            portions = split(_batch(valid, list(range(len(valid.ids)))), settings.micro_batch_rows)
            sums = [sft_objective(model, move(portion, world.device)) for portion in portions if len(valid.ids)]
        if not sums:
            return {}
        return {"valid_loss": float(sum(loss for loss, _ in sums)) / max(1.0, float(sum(n for _, n in sums)))}

    if world.is_first:
        learned = sum(target >= 0 for _, targets in encoded for target in targets)
        print(f"{len(encoded):,} conversations in {len(rows.ids):,} rows of {length}; {learned:,} tokens to be learned")
        print(f"{num_trained:,} parameters are trained")
    task = Task(
        model=model,
        tokenizer=tokenizer,
        batch=lambda step: _batch(rows, order.rows(step, world)),
        objective=sft_objective,
        validate=validate,
        sample=lambda step: sample_reply(LM(model, tokenizer), settings, step),
        data=fingerprint(tokenizer, [row for one in encoded for row in one]),
        num_steps=order.num_steps(settings.epochs),
        tokens_per_step=settings.batch_rows * length,
        world=world,
        write_model=write,
    )
    train(settings.out, task, settings.optim, settings.train, settings.micro_batch_rows)


def sft_objective(model: GPTNeoX, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed loss of predicting the targets, and their number; each conversation attends to itself only."""
    hidden = model.hidden(batch["ids"], documents=batch["documents"]).flatten(0, 1)
    targets = batch["targets"].flatten()
    return next_token_loss(hidden, model.embed_out.weight, targets), (targets >= 0).sum().float()


def read_conversations(tokenizer: Tokenizer, files: Sequence[Any]) -> list[Encoded]:
    """All rows, encoded.

    Raises:
        JaneoxError: a row is no conversation or holds no reply.
    """
    encoded = []
    for where, row in read_jsonl(files):
        one = encode(tokenizer, read_messages(row, where))
        if not one.ids:
            raise JaneoxError(f"{where}: nobody answers in it, so there is nothing to learn; leave it out")
        encoded.append(one)
    if files and not encoded:
        raise JaneoxError(f"{', '.join(map(str, files))}: no conversations there")
    return encoded


def pack(encoded: Sequence[Encoded], length: int, filler: int, seed: int) -> Packed:
    """Conversations into as few rows as best fit finds, longest first; of equal length, in a seeded order.

    What is longer than a row is cut; a conversation whose replies all lie past the cut is left out.
    """
    kept = [(one.ids[:length], one.targets[:length]) for one in encoded]
    kept = [one for one in kept if any(target >= 0 for target in one[1])]
    order = np.random.default_rng(seed).permutation(len(kept))
    rows: list[list[int]] = []
    open_rows: dict[int, list[int]] = {}  # by free places
    for index in sorted(order.tolist(), key=lambda index: -len(kept[index][0])):
        need = len(kept[index][0])
        free = next((free for free in range(need, length) if open_rows.get(free)), length)
        row = open_rows[free].pop() if free < length else len(rows)
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        open_rows.setdefault(free - need, []).append(row)
    packed = Packed(*(np.full((len(rows), length), value, np.int64) for value in (filler, -1, 0)))
    for row, indices in enumerate(rows):
        start = 0
        for number, index in enumerate(indices):
            ids, targets = kept[index]
            part = slice(start, start + len(ids))
            packed.ids[row, part], packed.targets[row, part], packed.documents[row, part] = ids, targets, number
            start += len(ids)
        packed.documents[row, start:] = len(indices)
    return packed


def _batch(packed: Packed, rows: list[int]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array[rows]) for name, array in packed._asdict().items()}
