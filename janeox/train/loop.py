"""The loop: batches of a step → summed loss → one optimizer step; logs, validates, saves, and goes on where it stopped.

Nothing in it depends on what came before a save: a batch is a function of the step, and the logged loss is that of the
step's own batch. So twenty steps equal ten, a kill, and ten more, bit for bit.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janeox.atomic import new_folder
from janeox.config import LoopConfig, OptimConfig
from janeox.device import autocast
from janeox.model import GPTNeoX
from janeox.progress import progress
from janeox.tokenizer import Tokenizer
from janeox.train.checkpoint import load_state, save_state
from janeox.train.metrics import Metrics
from janeox.train.optim import build, learning_rate
from janeox.train.parallel import World, sync_gradients, total, whole, whole_weights

Batch = Tensor | dict[str, Tensor]
"""Rows: one tensor, or tensors by name that all have the same number of rows."""

Objective = Callable[[Any, Any], tuple[Tensor, Tensor]]
"""(model, portion of a batch) → (sum of the loss over its tokens, number of those tokens)."""


@dataclass
class Task:
    """What is trained, apart from how."""

    model: GPTNeoX
    tokenizer: Tokenizer
    batch: Callable[[int], Batch]
    """Step (from 0) → this process's rows of it; their number is the same on all processes."""
    objective: Objective
    validate: Callable[[], dict[str, Any]]
    """Figures for metrics.jsonl."""
    sample: Callable[[int], str]
    """Step → a text by the model as it is."""
    data: str
    """Fingerprint of what `batch` reads."""
    num_steps: int
    tokens_per_step: int
    world: World
    """The processes that train together; all call `train`, the first one prints and writes."""
    write_model: Callable[[Path, dict[str, Tensor]], None] | None = None
    """Writes the files of `model/` from all weights by name; None: those of the language model and its tokenizer."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What else is needed to go on, as tensors and plain values: saved with the state, and put back into this table."""
    figures: Callable[[], dict[str, Any]] = dict
    """More fields of a logged row; all processes call it."""


def train(folder: Path, task: Task, optim: OptimConfig, config: LoopConfig, micro_batch_rows: int) -> None:
    """Trains `task.model` to its last step, from `folder/state` if there is one.

    Writes `folder/metrics.jsonl` (one row a logged step; fields under "time" are the only ones that differ between two
    equal runs), `folder/state`, and `folder/model`, a complete Hugging Face folder, at every save.

    Raises:
        JaneoxError: the state cannot be used, or the disk is full.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step at hand was finished and saved.
    """
    model = task.model
    optimizers = build(model, optim, model.config.head_dim)
    state = folder / "state"
    world = task.world
    first = load_state(state, task.data, model, optimizers, task.memory) if state.exists() else 0
    metrics = Metrics(folder / "metrics.jsonl", first) if world.is_first else None
    compile_layers(model, config)

    def save(step: int) -> None:
        # The model first: if the two are torn apart by a kill, the older state makes the same model again.
        weights = whole_weights(model)
        if world.is_first:
            with new_folder(folder / "model") as new:
                if task.write_model:
                    task.write_model(new, weights)
                else:
                    model.write_files(new, getattr(torch, config.save_dtype), weights)
                    task.tokenizer.save(new)
        save_state(state, step, task.data, model, optimizers, world, task.memory)

    with progress("train", task.num_steps, "steps", start=first, shown=world.is_first) as bar, interrupts() as stop:
        for step in range(first, task.num_steps):
            started = time.monotonic()
            rate = learning_rate(step, task.num_steps, optim)
            batch = task.batch(step)
            loss, norm = take_step(
                model, optimizers, task.objective, batch, micro_batch_rows, rate, optim, config, world
            )
            done, last = step + 1, step + 1 == task.num_steps
            seconds = time.monotonic() - started
            bar.advance(1, note=f"loss {loss:.3f}, {task.tokens_per_step / seconds:,.0f} tokens/s")
            stopping = total(torch.tensor(float(len(stop))), world) > 0  # a signal may have reached one process only
            if done % config.log_every == 0 or last or done == 1:
                row = {"loss": loss, "learning_rate": rate, "grad_norm": norm, **task.figures()}
                if metrics:
                    metrics.write(done, done * task.tokens_per_step, row, seconds)
            if done % config.evaluate_every == 0 or last:
                started = time.monotonic()
                model.eval()
                figures = task.validate()
                if metrics and figures:
                    metrics.write(done, done * task.tokens_per_step, figures, time.monotonic() - started)
                shown = [f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float)]
                if shown:
                    bar.print(f"step {done}: {', '.join(shown)}")
            if config.sample_every and (done % config.sample_every == 0) and not last:
                bar.print(f"step {done}: {task.sample(done)}")
            if done % config.save_every == 0 or last or stopping:
                save(done)
            if stopping:
                bar.print(f"stopped and saved at step {done}; the same command goes on from there")
                raise KeyboardInterrupt
    if first == task.num_steps:
        save(first)


def take_step(
    model: GPTNeoX,
    optimizers: list[torch.optim.Optimizer],
    objective: Objective,
    batch: Batch,
    micro_batch_rows: int,
    rate: float,
    optim: OptimConfig,
    config: LoopConfig,
    world: World,
) -> tuple[float, float]:
    """One optimizer step over this process's rows, in portions; returns loss a token and gradient norm before it.

    Gradients are those of the loss summed over all tokens, divided by their number: portions of unequal length count by
    their tokens. Where loss or norm are not finite, the weights are left as they are.
    """
    model.train()
    sums = torch.zeros(2, device=world.device)  # of the loss, and of the tokens
    portions = split(batch, micro_batch_rows)
    with autocast(config.dtype, model.device):  # around all portions, so that weights are cast once
        for number, portion in enumerate(portions, 1):
            sync_gradients(model, number == len(portions))
            loss_sum, num_tokens = objective(model, move(portion, world.device))
            loss_sum.backward()
            sums += torch.stack((loss_sum.detach(), num_tokens))
    loss, count = total(sums, world).tolist()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch._foreach_div_(gradients, count / world.size)  # they are averages over the processes
    norm = whole(torch.nn.utils.get_total_norm(gradients)).item()
    if optim.clip_norm:
        torch._foreach_mul_(gradients, min(1.0, optim.clip_norm / (norm + 1e-6)))
    if math.isfinite(norm + loss):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
    for optimizer in optimizers:
        optimizer.zero_grad()
    return loss / count, norm


def split(batch: Batch, rows: int) -> list[Any]:
    """A batch in portions of `rows` rows; the last may have fewer."""
    if isinstance(batch, Tensor):
        return list(batch.split(rows))
    parts = {name: tensor.split(rows) for name, tensor in batch.items()}
    return [dict(zip(parts, portion, strict=True)) for portion in zip(*parts.values(), strict=True)]


def move(batch: Batch, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def compile_layers(model: GPTNeoX, config: LoopConfig) -> None:
    """torch.compile, layer by layer: they are all alike, so that one compilation serves all."""
    if config.compile == "on" or (config.compile == "auto" and model.device.type == "cuda"):
        for layer in model.gpt_neox.layers:
            layer.compile()


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM append to, so that the step at hand is finished; a second one stops at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
