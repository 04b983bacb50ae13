"""`janeox plan`: what a recipe needs of GPUs, before any is rented; trial.py measures the machine at hand."""

import torch
from rich.console import Console
from rich.table import Table

from janeox.config import GPTNeoXConfig
from janeox.errors import JaneoxError
from janeox.progress import clock
from janeox.settings.train import Plan
from janeox.train.cost import PEAK, flops_per_token, num_parameters
from janeox.train.memory import GIB, USABLE, Layout, fitting, layer_parameters, memory
from janeox.train.parallel import World, check_heads, check_rows
from janeox.train.trial import run_trial

MEMORY = {"h100": 79.2 * GIB, "h200": 140.0 * GIB, "a100": 79.2 * GIB}  # as the driver reports it
# Shares of the peak that a plain PyTorch GPT-NeoX with compiled layers reached on one H100 at sequence length 2,048
# (torch 2.11): 3.6B at micro-batch 2, and 110M. The nearer one is used.
MEASURED_MFU = {3_607_245_312: 0.408, 134_000_000: 0.366}


def run_plan(settings: Plan) -> None:
    """The verb `plan`.

    Raises:
        JaneoxError: the recipe does not fit these GPUs; says by how much, and how many would do.
    """
    if settings.num_gpus < 1:
        raise JaneoxError(f"--num-gpus {settings.num_gpus}: must be at least 1")
    if settings.mfu is not None and not 0 < settings.mfu <= 1:
        raise JaneoxError(f"--mfu {settings.mfu}: must be above 0 and at most 1")
    if settings.gpu == "here":
        return run_trial(settings)
    config, data, ways = settings.model, settings.data, settings.train.tensor_parallel
    check_heads(config, ways)
    if settings.num_gpus % ways:
        raise JaneoxError(f"--num-gpus {settings.num_gpus} is no multiple of train.tensor_parallel = {ways}")
    world = World(torch.device("cuda"), size=settings.num_gpus, tensor_parallel=ways)
    check_rows(data.batch_tokens // data.sequence_length, world)
    available = MEMORY[settings.gpu]
    layout = fitting(config, data, settings.num_gpus, ways, available)
    if layout is None:
        raise JaneoxError(_too_few(settings, available))
    share = data.batch_tokens // data.sequence_length // layout.data
    portions = share // layout.rows
    parts = memory(config, data.sequence_length, layout, accumulates=layout.rows < share)
    table = Table(title=f"{num_parameters(config):,} parameters on {settings.num_gpus} × {settings.gpu.upper()}")
    table.add_column("memory a GPU")
    table.add_column("GiB", justify="right")
    for name, value in parts.items():
        table.add_row(name, f"{value / GIB:.2f}")
    table.add_row("sum", f"{sum(parts.values()) / GIB:.2f}")
    table.add_row(f"to be had ({USABLE:.0%} of it)", f"{USABLE * available / GIB:.2f}")
    console = Console()
    console.print(table)
    mfu = settings.mfu or min(MEASURED_MFU.items(), key=lambda item: abs(item[0] - num_parameters(config)))[1]
    mfu /= 1 + layout.recompute / config.num_hidden_layers / 3  # a third forward pass for those layers
    speed = settings.num_gpus * mfu * PEAK[settings.gpu.upper()] / flops_per_token(config, data.sequence_length)
    seconds = settings.train.tokens / speed
    console.print(
        f"data.micro_batch_rows={layout.rows} train.recompute_layers={layout.recompute}: "
        f"{portions} micro-batch{'es' * (portions > 1)} a step\n"
        f"{speed:,.0f} tokens/s at {mfu:.1%} of the peak; {settings.train.tokens:,} tokens in {clock(seconds)}, "
        f"{seconds * settings.num_gpus / 3600:,.0f} GPU-hours\n"
        f"{communication(config, layout, share, data.sequence_length) / 1e9:,.1f} GB sent by each GPU a step of "
        f"{data.batch_tokens / speed:.1f} s"
    )
    told = "as asked" if settings.mfu else "that of a plain PyTorch model on one H100, not of this trainer"
    console.print(
        f"The share of the peak is {told}; memory is counted without torch.compile. Not measured, and not in these "
        "figures: other GPUs, and what communication between GPUs costs beyond what computing hides."
    )


def communication(config: GPTNeoXConfig, layout: Layout, rows: int, length: int) -> float:
    """Bytes that each process sends a step.

    FSDP2 gathers the bfloat16 weights twice a micro-batch and scatters float32 gradients once a step; tensor
    parallelism sums 4 activations a layer, in two rounds each.
    """
    around = num_parameters(config) - config.num_hidden_layers * layer_parameters(config)
    own = config.num_hidden_layers * layer_parameters(config) / layout.tensor_parallel + around
    ring = (layout.data - 1) / layout.data
    gathered = 2 * 2 * own * ring * (rows // layout.rows) + 4 * own * ring
    ways = layout.tensor_parallel
    summed = 4 * config.num_hidden_layers * rows * length * config.hidden_size * 2 * 2 * (ways - 1) / ways
    return gathered + summed


def _too_few(settings: Plan, available: float) -> str:
    config, data, ways = settings.model, settings.data, settings.train.tensor_parallel
    least = Layout(settings.num_gpus, ways, 1, config.num_hidden_layers)
    needed = sum(memory(config, data.sequence_length, least, accumulates=True).values())
    rows = data.batch_tokens // data.sequence_length
    more = [2**k for k in range(1, 13) if 2**k > settings.num_gpus and 2**k % ways == 0]
    more = [number for number in more if rows % (number // ways) == 0]
    enough = next((n for n in more if fitting(config, data, n, ways, available)), None)
    advice = f"{enough} would do" if enough else "raise train.tensor_parallel, or make the model smaller"
    return (
        f"does not fit {settings.num_gpus} × {settings.gpu.upper()}: with one row at a time and all layers recomputed "
        f"a GPU needs {needed / GIB:.1f} GiB of {USABLE * available / GIB:.1f}, "
        f"{(needed - USABLE * available) / GIB:.1f} too many; {advice}"
    )
