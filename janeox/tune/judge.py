"""The verb `judge`: replies of two models to the same prompts, and which of them a reward prefers."""

import json
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from janeox.atomic import new_file
from janeox.device import pick_device
from janeox.dialogue import reply_text
from janeox.errors import JaneoxError
from janeox.lm import load
from janeox.progress import progress
from janeox.settings.tune import Judge
from janeox.tune.on_policy import read_prompts
from janeox.tune.rollout import Writer, open_reward

SLOTS = 16


class Verdict(NamedTuple):
    """Of the first model against the second: numbers of replies, and the mean of its lead with its standard error."""

    wins: int
    ties: int
    losses: int
    margin: float
    error: float


def run_judge(settings: Judge) -> None:
    """The verb `judge`: a table, and all replies with their scores as JSON lines.

    Raises:
        JaneoxError: not two models, models of different tokenizers, no prompt, or a reward that is wrong.
    """
    if len(settings.models) != 2:
        raise JaneoxError(f"judge compares two models, here are {len(settings.models)}: janeox judge NEW OLD …")
    if not settings.reward or not settings.data:
        raise JaneoxError("judge needs --reward, a folder or module:function, and --data, JSONL files with prompts")
    device = pick_device(settings.device)
    lms = [load(name, device=str(device), dtype="float32") for name in settings.models]
    tokenizer = lms[0].tokenizer
    if tokenizer.fingerprint != lms[1].tokenizer.fingerprint:
        raise JaneoxError(
            f"{' and '.join(settings.models)} have different tokenizers: the prompts would not be the same"
        )
    context = min(lm.model.config.max_position_embeddings for lm in lms)
    prompts = read_prompts(settings.data, tokenizer, settings.max_tokens, context)[: settings.limit]
    score = open_reward(settings.reward, tokenizer, SLOTS, device)
    replies: list[list[list[int]]] = []
    with progress("judge", len(lms) * len(prompts), "replies") as bar:
        for name, lm in zip(settings.models, lms, strict=True):
            writer = Writer(lm.model, SLOTS, max(map(len, prompts)) + settings.max_tokens)
            replies.append([])
            for at in range(0, len(prompts), SLOTS):
                portion = prompts[at : at + SLOTS]
                seeds = [settings.seed * 1_000_003 + at + row for row in range(len(portion))]
                written = writer.write(lm.model, portion, seeds, settings.max_tokens, settings.temperature)
                replies[-1] += [reply.ids for reply in written]
                bar.advance(len(portion), note=name)
    new_scores, old_scores = (score(prompts, ids) for ids in replies)
    texts = [[reply_text(tokenizer.decode(ids)) for ids in one] for one in replies]
    with new_file(settings.out) as new, new.open("w", encoding="utf-8") as file:
        for prompt, *pair in zip(prompts, *texts, new_scores, old_scores, strict=True):
            row = {"prompt": tokenizer.decode(prompt), "replies": pair[:2], "scores": pair[2:]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    Console().print(table(settings, verdict(new_scores, old_scores, settings.tie)))
    print(settings.out)


def verdict(first: Sequence[float], second: Sequence[float], tie: float) -> Verdict:
    """Counts, with scores closer than `tie` as ties."""
    leads = [a - b for a, b in zip(first, second, strict=True)]
    wins, losses = sum(lead > tie for lead in leads), sum(lead < -tie for lead in leads)
    error = statistics.stdev(leads) / math.sqrt(len(leads)) if len(leads) > 1 else math.nan
    return Verdict(wins, len(leads) - wins - losses, losses, statistics.mean(leads), error)


def table(settings: Judge, found: Verdict) -> Table:
    total = found.wins + found.ties + found.losses
    table = Table(title=f"{settings.models[0]} against {settings.models[1]}, {total} prompts", title_justify="left")
    for column in ("win", "tie", "loss", "mean lead"):
        table.add_column(column, justify="right")
    shares = (f"{count / total:.0%}" for count in (found.wins, found.ties, found.losses))
    table.add_row(*shares, f"{found.margin:.3f} ± {found.error:.3f}")
    return table
