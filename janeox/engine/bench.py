"""The verb `bench`: tokens a second, and what share of this machine's limits they are.

A step reads every weight once: its limit is the bandwidth. A long prompt multiplies every weight with every token: its
limit is the number of operations. Both limits are measured by the same threads just before.
"""

import importlib.util
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.table import Table

from janeox.engine.backend import Row
from janeox.engine.limits import peak_operations, read_bandwidth
from janeox.engine.native_backend import NativeBackend, NotCovered
from janeox.engine.packed_file import FILE, read_packed
from janeox.engine.torch_backend import TorchBackend
from janeox.errors import JaneoxError
from janeox.lm import newest_model
from janeox.model import GPTNeoX, read_config
from janeox.progress import progress
from janeox.settings.native import Bench
from janeox.weights import resolve

START = 16  # tokens that a text has before steps are measured


class Measured(Protocol):
    """As much of a backend as is measured."""

    def forward(self, rows: Sequence[Row]) -> torch.Tensor: ...


def run_bench(settings: Bench) -> None:
    """The verb `bench`.

    Raises:
        JaneoxError: no model, a prompt longer than its context, or no kernels for this machine.
    """
    folder = resolve(settings.model or newest_model())
    config = read_config(folder)
    longest = max(settings.prompt, START + settings.steps + 2)
    if longest > config.max_position_embeddings:
        raise JaneoxError(f"{longest} tokens are more than the model's context, {config.max_position_embeddings}")
    table = Table(title=f"tokens a second: {folder.name}", caption="% of this machine's limits", caption_justify="left")
    for column in ("engine", "bits", *(f"{rows} at once" for rows in settings.rows), f"prompt of {settings.prompt}"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    try:
        bandwidth = read_bandwidth()
        peaks = {bits: peak_operations(bits) for bits in (32, 16, 8)}
        for name, bits, backend in _backends(settings, folder, longest):
            with progress(f"measure {name}, {bits} bits", shown=True):
                steps = [_step_seconds(backend, rows, settings.steps) for rows in settings.rows]
                prompt = _prompt_seconds(backend, settings.prompt)
            cells = [f"{rows / seconds:.1f}" for rows, seconds in zip(settings.rows, steps, strict=True)]
            speed = f"{settings.prompt / prompt:.0f}"
            if isinstance(backend, NativeBackend):
                used = backend.step_bytes() / 1e9
                cells = [f"{cell} ({used / s / bandwidth:.0%})" for cell, s in zip(cells, steps, strict=True)]
                operations = 2 * _layer_weights(backend) * settings.prompt / prompt / 1e9
                speed += f" ({operations / peaks[backend.product_bits]:.0%})"
            table.add_row(name, str(bits), *cells, speed)
            del backend
    except NotCovered as error:
        raise JaneoxError(f"there is nothing to measure: {error}") from error
    print(
        f"read bandwidth {bandwidth:.1f} GB/s; {peaks[32]:.0f} GFLOP/s in float32, {peaks[16]:.0f} in bfloat16, "
        f"{peaks[8]:.0f} GOP/s in int8"
    )
    Console().print(table)


def _backends(settings: Bench, folder: Path, capacity: int) -> Iterator[tuple[str, int, Measured]]:
    """(name, bits, backend), one after the other, so that only one is in memory."""
    rows = max(settings.rows)
    if (folder / FILE).is_file():
        backend = NativeBackend(read_config(folder), read_packed(folder), rows, capacity)
        yield f"janeox ({backend.kernels})", backend.bits, backend
        return
    model = GPTNeoX.from_pretrained(folder)
    for bits in settings.bits:
        backend = NativeBackend.from_model(model, rows, capacity, bits=bits)
        yield f"janeox ({backend.kernels})", bits, backend
        del backend
    if settings.rivals:
        yield "janeox (torch)", torch.finfo(model.dtype).bits, TorchBackend(model, rows, capacity)
        if importlib.util.find_spec("transformers"):
            yield "transformers", torch.finfo(model.dtype).bits, _Transformers(folder, model.dtype)


class _Transformers:
    """For texts of one length."""

    def __init__(self, folder: Path, dtype: torch.dtype):
        from transformers import GPTNeoXForCausalLM

        self.model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> torch.Tensor:
        if rows[0].start == 0:
            self.cache = None
        found = self.model(torch.tensor([list(row.ids) for row in rows]), past_key_values=self.cache, logits_to_keep=1)
        self.cache = found.past_key_values
        return found.logits[:, 0]


def _step_seconds(backend: Measured, rows: int, steps: int) -> float:
    """Median seconds of a step that advances `rows` texts by a token."""
    backend.forward([Row(slot, 0, range(5, 5 + START)) for slot in range(rows)])
    times = []
    for number in range(steps + 2):
        start = time.perf_counter()
        backend.forward([Row(slot, START + number, [5]) for slot in range(rows)])
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _prompt_seconds(backend: Measured, length: int) -> float:
    ids = list(itertools.islice(itertools.cycle(range(5, 25)), length))
    start = time.perf_counter()
    backend.forward([Row(0, 0, ids)])
    return time.perf_counter() - start


def _layer_weights(backend: NativeBackend) -> int:
    """Numbers that are multiplied with every token of a prompt: all matrices but the head."""
    c = backend.config
    return c.num_hidden_layers * c.hidden_size * (4 * c.hidden_size + 2 * c.intermediate_size)
