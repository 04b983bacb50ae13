"""DPO: pairs of replies → a model that prefers the chosen ones, without a reward model."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from janeox.device import autocast
from janeox.lm import LM
from janeox.model import GPTNeoX
from janeox.settings.tune import Dpo
from janeox.train.loop import Task, move, split, train
from janeox.train.parallel import join, shard
from janeox.tune.losses import dpo_loss, token_logps
from janeox.tune.pairs import Pair, batch, read_pairs
from janeox.tune.start import Shuffled, fingerprint, open_run, sample_reply, write_dialogue_model


def run_dpo(settings: Dpo) -> None:
    """The verb `dpo`.

    Raises:
        JaneoxError: a row is no pair (names its file and line), parts that do not fit each other, or `out` holds a run
            with other settings.
        KeyboardInterrupt: stopped by a signal, after saving.
    """
    world = join(settings.train.device)
    model, tokenizer = open_run(settings, world)
    filler = tokenizer.eos_token_id or 0
    length = min(settings.max_tokens, model.config.max_position_embeddings)
    pairs = read_pairs(tokenizer, settings.data, length)
    valid = read_pairs(tokenizer, settings.valid, length)
    model.to(world.device)
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    shard(model, world)
    order = Shuffled(len(pairs), settings.batch_rows, settings.train.seed)

    def prepared(chosen: list[Pair]) -> dict[str, Tensor]:
        """A batch with the reference's log-probabilities."""
        rows = batch(chosen, filler)
        with torch.no_grad(), autocast(settings.train.dtype, world.device):
            portions = split(rows, settings.micro_batch_rows)
            parts = [reply_logps(reference, move(portion, world.device)).cpu() for portion in portions]
        return rows | {"reference": torch.cat(parts)}

    def validate() -> dict[str, Any]:
        if not valid:
            return {}
        with torch.no_grad(), autocast(settings.train.dtype, world.device):
            portions = [move(p, world.device) for p in split(prepared(valid), settings.micro_batch_rows)]
            found = [dpo_loss(reply_logps(model, p), p["reference"], settings.beta) for p in portions]
        losses, rewards = torch.cat([loss for loss, _ in found]), torch.cat([reward for _, reward in found])
        return {
            "valid_loss": losses.mean().item(),
            "valid_rewards/accuracies": (rewards[:, 0] > rewards[:, 1]).float().mean().item(),
            "valid_rewards/margins": (rewards[:, 0] - rewards[:, 1]).mean().item(),
        }

    task = Task(
        model=model,
        tokenizer=tokenizer,
        batch=lambda step: prepared([pairs[row] for row in order.rows(step, world)]),
        objective=partial(dpo_objective, beta=settings.beta),
        validate=validate,
        sample=lambda step: sample_reply(LM(model, tokenizer), settings, step),
        data=fingerprint(tokenizer, [ids for pair in pairs for ids in pair]),
        num_steps=order.num_steps(settings.epochs),
        tokens_per_step=settings.batch_rows
        * round(sum(len(p) * 2 + len(c) + len(r) for p, c, r in pairs) / len(pairs)),
        world=world,
        write_model=partial(write_dialogue_model, model, tokenizer, settings.train.save_dtype),
    )
    train(settings.out, task, settings.optim, settings.train, settings.micro_batch_rows)


def reply_logps(model: GPTNeoX, batch: dict[str, Tensor]) -> Tensor:
    """log p of the chosen and of the rejected reply as a whole, (B, 2)."""
    ids, targets = batch["ids"].flatten(0, 1), batch["targets"].flatten(0, 1)
    return token_logps(model, ids, targets)[0].sum(1).unflatten(0, (-1, 2))


def dpo_objective(model: GPTNeoX, batch: dict[str, Tensor], beta: float) -> tuple[Tensor, Tensor]:
    """Summed loss of the pairs, and their number."""
    losses, _ = dpo_loss(reply_logps(model, batch), batch["reference"], beta)
    return losses.sum(), torch.tensor(float(len(losses)), device=losses.device)
