"""The reward model's training: pairs of replies, Bradley and Terry's loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from janeox.device import autocast
from janeox.dialogue import CHAT_TEMPLATE
from janeox.errors import JaneoxError
from janeox.settings.tune import Reward
from janeox.train.loop import Task, move, train
from janeox.train.parallel import join, shard
from janeox.tune.losses import bradley_terry_loss
from janeox.tune.pairs import Pair, batch, read_pairs
from janeox.tune.reward_model import RewardModel
from janeox.tune.start import Shuffled, fingerprint, open_run

BINS = 5


def run_reward(settings: Reward) -> None:
    """The verb `reward`.

    Raises:
        JaneoxError: a row is no pair (names its file and line), parts that do not fit each other, or `out` holds a run
            with other settings.
        KeyboardInterrupt: stopped by a signal, after saving.
    """
    world = join(settings.train.device)
    language_model, tokenizer = open_run(settings, world)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise JaneoxError(f"{tokenizer.where}: has no padding piece; transformers could not find a reply's end")
    filler = tokenizer.pad_token_id or 0
    length = min(settings.max_tokens, language_model.config.max_position_embeddings)
    pairs = read_pairs(tokenizer, settings.data, length)
    valid = read_pairs(tokenizer, settings.valid, length)
    model = RewardModel.from_language_model(language_model).to(world.device)
    shard(model, world)
    order = Shuffled(len(pairs), settings.batch_rows, settings.train.seed)

    def write(folder: Path, weights: dict[str, Tensor]) -> None:
        model.write(folder, getattr(torch, settings.train.save_dtype), weights, filler)
        tokenizer.save(folder, CHAT_TEMPLATE)

    def margins() -> Tensor:
        with autocast(settings.train.dtype, world.device):
            return pair_margins(model, valid, filler, settings.micro_batch_rows)

    task = Task(
        model=model,
        tokenizer=tokenizer,
        batch=lambda step: batch([pairs[row] for row in order.rows(step, world)], filler),
        objective=reward_objective,
        validate=lambda: report(margins()) if valid else {},
        sample=lambda step: "",
        data=fingerprint(tokenizer, [ids for pair in pairs for ids in pair]),
        num_steps=order.num_steps(settings.epochs),
        tokens_per_step=settings.batch_rows
        * round(sum(len(p) * 2 + len(c) + len(r) for p, c, r in pairs) / len(pairs)),
        world=world,
        write_model=write,
    )
    settings.train.sample_every = 0  # it writes nothing
    if world.is_first:
        print(f"{len(pairs):,} pairs to learn from, {len(valid):,} held out")
    train(settings.out, task, settings.optim, settings.train, settings.micro_batch_rows)
    if valid:
        found = margins()
        if world.is_first:
            Console().print(calibration_table(found))


def reward_objective(model: RewardModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed Bradley–Terry loss of the pairs, and their number."""
    scores = pair_scores(model, batch)
    return bradley_terry_loss(scores[:, 0], scores[:, 1]).sum(), torch.tensor(float(len(scores)), device=scores.device)


def pair_scores(model: RewardModel, batch: dict[str, Tensor]) -> Tensor:
    """Of the chosen and of the rejected reply, (B, 2)."""
    ids, targets = (batch[name].flatten(0, 1) for name in ("ids", "targets"))
    return model.scores(ids, targets).unflatten(0, (-1, 2))


@torch.no_grad()
def pair_margins(model: RewardModel, pairs: Sequence[Pair], filler: int, rows: int) -> Tensor:
    """r_chosen − r_rejected of each pair, (N,)."""
    margins = []
    for start in range(0, len(pairs), rows):
        scores = pair_scores(model, move(batch(pairs[start : start + rows], filler), model.device))
        margins.append((scores[:, 0] - scores[:, 1]).cpu())
    return torch.cat(margins)


def report(margins: Tensor) -> dict[str, Any]:
    """Loss and accuracy; the calibration error is the mean distance, over bins of confidence, between how sure the
    model is of its choice and how often it is right (arXiv 1706.04599)."""
    error = sum(share * abs(sure - right) for share, sure, right in calibration(margins))
    return {
        "valid_loss": bradley_terry_loss(margins, torch.zeros_like(margins)).mean().item(),
        "valid_accuracy": (margins > 0).float().mean().item(),
        "valid_margin": margins.mean().item(),
        "valid_calibration_error": error,
    }


def calibration(margins: Tensor) -> list[tuple[float, float, float]]:
    """(share of the pairs, mean confidence, share that is right) by bins of confidence σ(|margin|) from 0.5 to 1."""
    confidence, right = margins.abs().sigmoid(), (margins > 0).float()
    bins = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    return [
        (at.float().mean().item(), confidence[at].mean().item(), right[at].mean().item())
        for at in (bins == number for number in range(BINS))
        if at.any()
    ]


def calibration_table(margins: Tensor) -> Table:
    table = Table(title=f"accuracy {(margins > 0).float().mean():.1%} on {len(margins):,} held-out pairs")
    for column in ("share of pairs", "confidence", "right"):
        table.add_column(column, justify="right")
    for share, sure, right in calibration(margins):
        table.add_row(f"{share:.0%}", f"{sure:.2f}", f"{right:.2f}")
    return table
