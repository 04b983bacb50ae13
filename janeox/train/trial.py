"""`janeox plan --gpu here`: a few steps of the recipe's model with few of its layers, and what they say of the whole.

Time and memory of a step grow evenly with the layers, and time with the micro-batches. So models of two sizes, each in
a process of its own, take steps of one and of two micro-batches in turn; the rest is a line through what they took.
Nothing is known here of how a step is computed, so it holds for any device and any kernels.
"""

import math
import multiprocessing
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection

import torch
from rich.console import Console
from rich.table import Table

from janeox.config import GPTNeoXConfig
from janeox.device import bfloat16_products, device_memory, keep_freed_memory, pick_device
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.progress import clock, progress
from janeox.settings.train import Plan
from janeox.train.cost import flops_per_token, num_parameters, peak_flops, peak_memory
from janeox.train.fp8 import check_float8, use_float8
from janeox.train.loop import compile_layers, recompute_layers, take_step
from janeox.train.memory import GIB, USABLE, Layout, choice, chosen, memory
from janeox.train.optim import build
from janeox.train.parallel import World
from janeox.train.pretrain import next_token_objective

ROUNDS = 3  # at least
SECONDS = 45.0  # of rounds, where they are short: a machine's speed swings, and medians of many swing less
# Of the larger model. More say little more, and take longer. Fewer say less: with few layers the most is held in other
# moments of a step than with many, and the heap's gaps weigh more.
MOST_LAYERS = 6


@dataclass(frozen=True)
class Size:
    """Layers of a model: those that keep their activations, and those that compute them again."""

    kept: int
    recomputed: int

    @property
    def layers(self) -> int:
        return self.kept + self.recomputed


@dataclass(frozen=True)
class Sample:
    """What steps of the whole batch take with a model of one size.

    Attributes:
        seconds: of a step, one a round.
        memory: bytes that the process (on a GPU: its tensors there) held at most.
        state: bytes of weights and optimizer state.
    """

    seconds: list[float]
    memory: float
    state: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def run_trial(settings: Plan) -> None:
    """The verb `plan` for this machine.

    Raises:
        JaneoxError: the recipe does not fit this machine, says by how much; or not even a few layers of it do.
    """
    data, train = settings.data, settings.train
    if settings.num_gpus > 1 or train.tensor_parallel > 1 or settings.mfu:
        raise JaneoxError("--gpu here measures one process; leave out --num-gpus, --mfu and train.tensor_parallel")
    device = pick_device(train.device)
    if train.fp8:
        check_float8(device, micro_batch_rows(settings), data.sequence_length, 1)
    bfloat16, room = bfloat16_products(train.dtype, device), device_memory(device)
    layout = chosen(settings.model, data, train, 1, room, device.type, bfloat16)
    settings = replace(settings, train=replace(train, recompute_layers=layout.recompute))
    whole, samples = whole_size(settings), measure(settings, device)
    told = predict(whole, samples)
    speeds = sorted(data.batch_tokens / seconds for seconds in told.seconds)
    steps = max(1, train.tokens // data.batch_tokens)
    dtype = "bfloat16" if bfloat16 else "float32"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    console = Console()
    console.print(_table(samples, told, whole, data.batch_tokens, f"This machine ({name}), products in {dtype}"))
    speed = data.batch_tokens / told.median
    peak = peak_flops(device)
    share = f", {speed * flops_per_token(settings.model, data.sequence_length) / peak:.1%} of the peak" if peak else ""
    console.print(
        f"{num_parameters(settings.model):,} parameters: {speed:,.0f} tokens/s{share}; {train.tokens:,} tokens in "
        f"{clock(steps * told.median)} ({steps:,} steps of {data.batch_tokens:,} tokens)\n"
        f"Each of the {len(speeds)} rounds by itself says {speeds[0]:,.0f} to {speeds[-1]:,.0f} tokens/s. Rows were "
        "random tokens, each one document; validation, samples and saves take time and memory besides."
    )
    if line := choice(settings.model, train, layout):
        console.print(line)
    available = room * (USABLE if device.type == "cuda" else 1)
    if told.memory > available:
        raise JaneoxError(
            f"does not fit here: a step needs about {told.memory / GIB:.1f} GiB of {available / GIB:.1f}, "
            f"{(told.memory - available) / GIB:.1f} too many; a smaller data.micro_batch_rows or more "
            "train.recompute_layers need less"
        )


def _table(samples: dict[Size, Sample], told: Sample, whole: Size, tokens: int, title: str) -> Table:
    table = Table(title=title)
    table.add_column("")
    for size in samples:
        again = f", {size.recomputed} recomputed" if size.recomputed else ""
        table.add_column(f"{size.layers} layer{'s' * (size.layers > 1)}{again}\nmeasured", justify="right")
    table.add_column(f"all {whole.layers}\npredicted", justify="right")
    columns = [*samples.values(), told]
    table.add_row("seconds a step", *(f"{column.median:.3f}" for column in columns))
    table.add_row("tokens/s", *(f"{tokens / column.median:,.0f}" for column in columns))
    table.add_row("memory, GiB", *(f"{column.memory / GIB:.2f}" for column in columns))
    table.add_row("a save's copy, GiB", *(f"{column.state / GIB:.2f}" for column in columns))
    return table


def measure(settings: Plan, device: torch.device) -> dict[Size, Sample]:
    """Samples of the sizes that `predict` needs.

    Raises:
        JaneoxError: there is not enough memory for them, or a process with one of them ended.
    """
    data = settings.data
    portions = data.batch_tokens // data.sequence_length / micro_batch_rows(settings)
    most = math.ceil(min(portions, 2))  # what two hold, many hold, but for gaps of the heap
    of = fitting_sizes(settings, device, most > 1)
    one: dict[Size, list[float]] = {size: [] for size in of}
    several: dict[Size, list[float]] = {size: [] for size in of}
    held, state = dict.fromkeys(of, 0.0), dict.fromkeys(of, 0.0)
    with ExitStack() as stack, progress("trial", unit="micro-batches") as bar:
        models = {size: stack.enter_context(_process(settings, size)) for size in of}
        bar.print(f"measuring {_listed(of)} of {whole_size(settings).layers} layers")

        def step(size: Size, count: int) -> float:
            try:
                models[size].send(count)
                seconds, held[size], state[size] = models[size].recv()
            except (EOFError, OSError) as error:
                raise JaneoxError(f"the process with {size.layers} layers ended; was there memory enough?") from error
            bar.advance(count)
            return seconds

        for size in of:  # to warm up: the first one makes the optimizer's state, and compiles
            step(size, most)
        begun, rounds, done = time.monotonic(), ROUNDS, 0
        while done < rounds:
            for size in of:  # in turn, so that what slows the machine for a while slows all
                several[size].append(step(size, most))
                one[size].append(step(size, 1) if most > 1 else several[size][-1])
            done += 1
            if done == 1:
                seconds = time.monotonic() - begun
                rounds = max(ROUNDS, round(SECONDS / seconds))
                bar.total = bar.done + (rounds - 1) * len(of) * (3 if most > 1 else 1)
                bar.print(f"{rounds} rounds, about {clock(rounds * seconds)} (minutes:seconds)")
    return {
        size: Sample(
            [a + (portions - 1) * max(0.0, b - a) for a, b in zip(one[size], several[size], strict=True)],
            held[size],
            state[size],
        )
        for size in of
    }


def predict(whole: Size, samples: dict[Size, Sample]) -> Sample:
    """What all layers take: of each round, and of memory."""
    rounds = zip(*(sample.seconds for sample in samples.values()), strict=True)
    return Sample(
        [extrapolate(whole, dict(zip(samples, seconds, strict=True))) for seconds in rounds],
        extrapolate(whole, {size: sample.memory for size, sample in samples.items()}),
        extrapolate(whole, {size: sample.state for size, sample in samples.items()}),
    )


def extrapolate(whole: Size, found: dict[Size, float]) -> float:
    """The value at `whole` of the plane through values at `sizes`."""
    (low, base), *others = found.items()
    value = base
    for size, other in others:
        kept = size.kept > low.kept  # the kind of layer that it has more of
        more = whole.kept - low.kept if kept else whole.recomputed - low.recomputed
        # More layers never take less: where they seem to, the machine was busy with something else.
        value += max(0.0, other - base) / (size.layers - low.layers) * more
    return value


def sizes(whole: Size, most: int = MOST_LAYERS) -> list[Size]:
    """A small model, and for each kind of layer one that has more of them: at most three quarters of the whole's, and
    `most`; but at least two."""
    high = [max(2, min(most, number * 3 // 4)) if number else 0 for number in (whole.kept, whole.recomputed)]
    low = Size(*(number // 2 for number in high))
    found = [low]
    if whole.kept:
        found.append(Size(high[0], low.recomputed))
    if whole.recomputed:
        found.append(Size(low.kept, high[1]))
    return found


def fitting_sizes(settings: Plan, device: torch.device, accumulates: bool) -> list[Size]:
    """The largest `sizes` of which all models together need no more than half of the memory, as counted beforehand."""
    bfloat16, room = bfloat16_products(settings.train.dtype, device), device_memory(device)

    def needed(size: Size) -> float:
        layout = Layout(1, 1, micro_batch_rows(settings), size.recomputed)
        length = settings.data.sequence_length
        return sum(memory(with_layers(settings, size), length, layout, accumulates, bfloat16, device.type).values())

    whole = whole_size(settings)
    for most in range(MOST_LAYERS, 1, -1):
        found = sizes(whole, most)
        total = sum(map(needed, found))
        if total <= room / 2:
            return found
    if total > room:
        raise JaneoxError(
            f"even {_listed(found)} layers, which would be measured, need about {total / GIB:.1f} GiB of "
            f"{room / GIB:.1f}; make data.micro_batch_rows smaller"
        )
    return found


def _listed(found: list[Size]) -> str:
    return " and ".join(str(size.layers) for size in found)


def whole_size(settings: Plan) -> Size:
    recomputed = min(settings.train.recompute_layers or 0, settings.model.num_hidden_layers)
    return Size(settings.model.num_hidden_layers - recomputed, recomputed)


def with_layers(settings: Plan, size: Size) -> GPTNeoXConfig:
    return GPTNeoXConfig(**(vars(settings.model) | {"num_hidden_layers": size.layers}))


def micro_batch_rows(settings: Plan) -> int:
    return min(settings.data.micro_batch_rows, settings.data.batch_tokens // settings.data.sequence_length)


@contextmanager
def _process(settings: Plan, size: Size) -> Iterator[Connection]:
    """A process with a model: sent a number of micro-batches, it takes a step, and answers with its seconds, the most
    bytes that it has held so far, and those of its state."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_take_steps, args=(theirs, settings, size), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _take_steps(connection: Connection, settings: Plan, size: Size) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which ends this one
    data, optim, train = settings.data, settings.optim, settings.train
    device = pick_device(train.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = GPTNeoX(with_layers(settings, size))
    if train.fp8:
        use_float8(model)
    generator = torch.Generator().manual_seed(0)
    model.to(device).initialize(generator, train.init)
    optimizers = build(model, optim, model.config.head_dim)
    recompute_layers(model, size.recomputed)
    compile_layers(model, train)
    objective = partial(next_token_objective, separate=data.separate_documents, z_loss=optim.z_loss)
    rows = micro_batch_rows(settings)
    while True:
        try:
            portions = connection.recv()
        except EOFError:
            return
        batch = torch.randint(model.config.vocab_size, (portions * rows, data.sequence_length + 1), generator=generator)
        batch[batch == model.config.eos_token_id] = model.config.bos_token_id
        started = time.perf_counter()
        take_step(model, optimizers, objective, batch, rows, optim.learning_rate, optim, train, World(device))
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds = time.perf_counter() - started
        tensors = list(model.parameters())
        tensors += [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
        connection.send((seconds, peak_memory(device), sum(tensor.nbytes for tensor in tensors)))
