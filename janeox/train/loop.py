"""The loop: batches of a step → summed loss → one optimizer step; logs, validates, saves, and goes on where it stopped.

Nothing in it depends on what came before a save: a batch is a function of the step, and the logged loss is that of the
step's own batch. So twenty steps equal ten, a kill, and ten more, bit for bit.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from janeox.config import LoopConfig, OptimConfig
from janeox.device import autocast, keep_freed_memory
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.progress import progress
from janeox.tokenizer import Tokenizer
from janeox.train.checkpoint import Saver, load_state, sole
from janeox.train.cost import flops_per_token, peak_flops, peak_memory
from janeox.train.metrics import Metrics
from janeox.train.optim import build, learning_rate
from janeox.train.parallel import World, anywhere, by_mesh, gradient_norm, sync_gradients, total

Batch = Tensor | dict[str, Tensor]
"""Rows: one tensor, or tensors by name that all have the same number of rows."""

MOST_LEFT_OUT = 100
"""Steps in a row whose batches are left out, after which a run ends: no step would change the weights any more."""

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
    sequence_length: int = 0
    """Tokens a row, for the count of operations."""
    batch_ahead: bool = False
    """Whether a batch may be made while the step before is taken: it then must not depend on the weights."""

    def write_files(self, dtype: torch.dtype, folder: Path, weights: dict[str, Tensor]) -> None:
        if self.write_model:
            self.write_model(folder, weights)
        else:
            self.model.write_files(folder, dtype, weights)
            self.tokenizer.save(folder)


def train(folder: Path, task: Task, optim: OptimConfig, config: LoopConfig, micro_batch_rows: int) -> None:
    """Trains `task.model` to its last step, from `folder/state` if there is one.

    Writes `folder/metrics.jsonl` (one row a logged step; fields under "time" are the only ones that differ between two
    equal runs), `folder/state`, and `folder/model`, a complete Hugging Face folder, at every save.

    Raises:
        JaneoxError: the state cannot be used, another process trains into `folder`, the disk is full, or
            `MOST_LEFT_OUT` batches in a row were left out.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGUSR1, after the step at hand was finished and saved.
    """
    with sole(folder) if task.world.is_first else nullcontext():
        _train(folder, task, optim, config, micro_batch_rows)


def _train(folder: Path, task: Task, optim: OptimConfig, config: LoopConfig, micro_batch_rows: int) -> None:
    model, world = task.model, task.world
    if world.device.type == "cpu":
        keep_freed_memory()
    optimizers = build(model, optim, model.config.head_dim)
    state = folder / "state"
    first = load_state(state, task.data, model, optimizers, task.memory) if state.exists() else 0
    metrics = Metrics(folder / "metrics.jsonl", first, config.log_to) if world.is_first else None
    recompute_layers(model, config.recompute_layers or 0)
    compile_layers(model, config)
    write_model = partial(task.write_files, getattr(torch, config.save_dtype))
    saver = Saver(folder, model, optimizers, write_model, task.data, task.memory, config.keep, world)
    flops, peak = flops_per_token(model.config, task.sequence_length), peak_flops(world.device)

    def write(done: int, figures: dict[str, Any], timing: dict[str, float]) -> None:
        if metrics:
            metrics.write(done, done * task.tokens_per_step, figures, timing)

    with progress("train", task.num_steps, "steps", start=first, shown=world.is_first) as bar, interrupts() as stop:
        if first:
            bar.print(f"{first:,} of {task.num_steps:,} steps were done before")
        started = time.monotonic()
        left_out = 0  # in a row
        steps = range(first, task.num_steps)
        for step, batch in ahead(task.batch, steps) if task.batch_ahead else ((s, task.batch(s)) for s in steps):
            waited = time.monotonic() - started
            rate = learning_rate(step, task.num_steps, optim)
            loss, norm = take_step(
                model, optimizers, task.objective, batch, micro_batch_rows, rate, optim, config, world
            )
            done, last = step + 1, step + 1 == task.num_steps
            seconds = time.monotonic() - started
            speed = task.tokens_per_step / seconds
            timing = {"seconds": seconds, "waited": waited, "tokens_per_second": speed}
            timing |= {"mfu": speed * flops / peak / world.size} if peak else {}
            timing["memory_gib"] = peak_memory(world.device) / 2**30
            bar.advance(1, note=note(loss, norm, rate, timing))
            stopping = anywhere(bool(stop), world)  # a signal may have reached one process only
            skipped = not sound(loss, norm, optim)
            left_out = left_out + 1 if skipped else 0
            if skipped:
                bar.print(f"step {done}: left out, its loss is {loss:.4g} and its gradient norm {norm:.4g}")
            if done % config.log_every == 0 or last or done == 1 or skipped:
                row = {"loss": loss, "learning_rate": rate, "grad_norm": norm} | task.figures()
                row |= {"skipped": True} if skipped else {}
                write(done, row, timing)
            if left_out == MOST_LEFT_OUT:
                saver.wait()
                raise JaneoxError(no_step(folder, loss, norm, optim))
            if done % config.evaluate_every == 0 or last:
                started = time.monotonic()
                model.eval()
                figures = task.validate()
                if figures:
                    write(done, figures, {"seconds": time.monotonic() - started})
                shown = [f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float)]
                if shown:
                    bar.print(f"step {done}: {', '.join(shown)}")
            if done % config.save_every == 0 or last or stopping:
                saver.save(done)
            if stopping:
                saver.wait()
                anywhere(True, world)  # launchers end those that stay as soon as one has gone: wait for the slowest
                bar.print(f"stopped and saved at step {done}; the same command goes on from there")
                raise KeyboardInterrupt
            if config.sample_every and (done % config.sample_every == 0) and not last:
                bar.print(f"step {done}: {task.sample(done)}")
            started = time.monotonic()
    if first == task.num_steps:
        saver.save(first)
    saver.wait()


def ahead(batch: Callable[[int], Batch], steps: range) -> Iterator[tuple[int, Batch]]:
    """Each step with its batch, which a thread makes while the step before is taken."""
    with ThreadPoolExecutor(1, "batches") as pool:
        coming = pool.submit(batch, steps[0]) if steps else None
        for step in steps:
            assert coming is not None
            ready = coming.result()
            coming = pool.submit(batch, step + 1) if step + 1 in steps else None
            yield step, ready


def note(loss: float, norm: float, rate: float, timing: dict[str, float]) -> str:
    """The end of the status line."""
    parts = [f"loss {loss:.3f}", f"norm {norm:.2f}", f"rate {rate:.1e}", f"{timing['tokens_per_second']:,.0f} tokens/s"]
    parts += [f"MFU {timing['mfu']:.0%}"] if "mfu" in timing else []
    return ", ".join([*parts, f"{timing['memory_gib']:.1f} GiB"])


def sound(loss: float, norm: float, optim: OptimConfig) -> bool:
    """Whether a batch with this loss and gradient norm is to change the weights."""
    return math.isfinite(loss + norm) and (not optim.skip_norm or norm <= optim.skip_norm)


def no_step(folder: Path, loss: float, norm: float, optim: OptimConfig) -> str:
    """What is said where a run ends since nothing changes its weights."""
    if math.isfinite(loss + norm):
        remedy = f"a larger optim.skip_norm than {optim.skip_norm:g}, or 0"
    else:
        remedy = "a smaller optim.learning_rate, a longer optim.warmup_fraction, or train.dtype=float32"
    return (
        f"{folder}: {MOST_LEFT_OUT} batches in a row were left out (the last one's loss is {loss:.4g}, its gradient "
        f"norm {norm:.4g}), so nothing is learned any more; saves made before are whole. Try {remedy}, in another "
        "--out folder"
    )


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
    their tokens. Where loss and norm are not `sound`, the weights are left as they are.
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
    scale = world.data_size / count  # they are averages over the processes, of sums over the tokens
    norm = gradient_norm(gradients) * scale
    if sound(loss / count, norm, optim):
        if optim.clip_norm:
            scale *= min(1.0, optim.clip_norm / (norm + 1e-6))
        for alike in by_mesh(gradients):
            torch._foreach_mul_(alike, scale)
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


def recompute_layers(model: GPTNeoX, number: int) -> None:
    """Makes the first layers keep their input only, and compute the rest again for their gradient."""
    for layer in list(model.gpt_neox.layers)[:number]:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(model: GPTNeoX, config: LoopConfig) -> None:
    """torch.compile, layer by layer: they are all alike, so that one compilation serves all."""
    if config.compile == "on" or (config.compile == "auto" and model.device.type == "cuda"):
        for layer in model.gpt_neox.layers:
            layer.compile()


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list that Ctrl-C, SIGTERM and SIGUSR1 append to, so that the step at hand is finished.

    A second Ctrl-C stops at once; the others often come twice, from who ends a job and from a launcher that passes it
    on. SIGUSR1 is what Slurm sends before its time limit, where asked to (`--signal=USR1@300`).
    """
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
