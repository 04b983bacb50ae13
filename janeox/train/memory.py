"""What a training step holds in memory, by part, from a recipe alone: nothing is built, so it costs nothing.

Activations are counted tensor by tensor as autograd keeps them (`tests/test_plan.py` compares with what it really
keeps). torch.compile keeps fewer; how many is not known here, so the figures are those without it.
"""

from dataclasses import dataclass
from functools import partial

from janeox.config import DataConfig, GPTNeoXConfig, TrainConfig
from janeox.errors import JaneoxError
from janeox.native.training import pay
from janeox.train.cost import num_parameters
from janeox.train.loss import BLOCK_BYTES, SLICE_BYTES

GIB = 2**30
USABLE = 0.92  # share of a device's memory; the rest goes to the allocator's gaps, kernels' workspace and the context


@dataclass(frozen=True)
class Layout:
    """How a step is divided.

    Attributes:
        processes: all of them; `tensor_parallel` divide each layer, the others divide the rows.
        rows: of a micro-batch.
        recompute: layers whose activations are computed again.
    """

    processes: int
    tensor_parallel: int
    rows: int
    recompute: int

    @property
    def data(self) -> int:
        return self.processes // self.tensor_parallel


def memory(
    config: GPTNeoXConfig, length: int, layout: Layout, accumulates: bool, bfloat16: bool = True, device: str = "cuda"
) -> dict[str, float]:
    """Bytes a process, by part; their sum is the peak, in the backward pass of a micro-batch. Not counted is what a
    process holds without a model: PyTorch's libraries, and the gaps of the heap.

    Args:
        accumulates: whether a step has several micro-batches.
        bfloat16: whether products are in bfloat16; weights, gradients and optimizer state are float32 in any case.
    """
    C, L, V = config.hidden_size, config.num_hidden_layers, config.vocab_size
    tp, item = layout.tensor_parallel, 2 if bfloat16 else 4
    total = num_parameters(config)
    around = total - L * layer_parameters(config)  # embedding, head, last norm
    whole = L * layer_parameters(config) / tp + around  # what one process would hold without FSDP
    tokens = layout.rows * length
    layer = tokens * activation_bytes(config, tp, item, device)
    native, logits = device == "cpu" and pay(bfloat16), tokens * V * item
    if native:  # a block gives its gradient in float32, which is kept where there is one block only
        of_block = 4 * V * C if logits > BLOCK_BYTES[device] else 0
    else:  # on a CPU the native kernel needs no slices; without it they are few
        of_block = item * V * C if device == "cpu" else max(2 * SLICE_BYTES[device], item * V * C)
    loss = 4 * V * C + min(BLOCK_BYTES[device], logits) + of_block + 3 * tokens * C * item
    inputs = tokens * C * item
    kept = (L - layout.recompute) * layer + layout.recompute * inputs + (layer if layout.recompute else 0)
    if layout.data > 1:  # gathered for the layer at work and the next one; the rest of the model around them stays
        copies = item * (2 * layer_parameters(config) / tp + around)
        gradients = 4 * whole if accumulates else 4 * (whole / layout.data + layer_parameters(config) / tp)
    else:
        copies, gradients = (2 * whole if bfloat16 and not native else 0), 4 * whole
    if not accumulates:  # they come as activations and the loss's tensors go; together they are as much as the larger
        gradients = max(0, gradients + layer - kept - loss)
    return {
        "weights": 4 * whole / layout.data,
        "gradients": gradients,
        "optimizer state": 8 * whole / layout.data,
        "weights to compute with": copies,
        "activations": kept,
        "head and loss": loss,
    }


def layer_parameters(config: GPTNeoXConfig) -> int:
    one, none = (num_parameters(_with_layers(config, n)) for n in (2, 1))
    return one - none


def _with_layers(config: GPTNeoXConfig, layers: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(**(vars(config) | {"num_hidden_layers": layers}))


def activation_bytes(config: GPTNeoXConfig, tensor_parallel: int, item: int, device: str) -> float:
    """What autograd keeps of one layer, a token: 4 tensors of C that all processes have (the stream before each norm,
    and the norms' results); divided, 5 of C (rotated q and k, v, the attention twice) and 2 of M; and statistics.
    Attention on a CPU keeps its result once, and no statistics, where it is native or in bfloat16.
    """
    C, M, H = config.hidden_size, config.intermediate_size, config.num_attention_heads
    plain = device == "cpu" and (item == 2 or pay(False))
    divided = item * ((4 if plain else 5) * C + 2 * M) + (0 if plain else 4 * H)
    return item * 4 * C + 16 + divided / tensor_parallel


def fitting(
    config: GPTNeoXConfig, data: DataConfig, processes: int, tensor_parallel: int, available: float,
    bfloat16: bool = True, device: str = "cuda",
) -> Layout | None:  # fmt: skip
    """The layout that fits and computes the least again, of those the one with the largest micro-batch; or none."""
    share = rows_of_process(data, processes, tensor_parallel)
    sizes = [rows for rows in (32, 16, 8, 4, 2, 1) if rows <= share and share % rows == 0]
    full = [rows for rows in sizes if rows * data.sequence_length >= 4096] or sizes[:1]  # enough to keep a GPU busy
    for wanted in (full, sizes):
        for recompute in range(config.num_hidden_layers + 1):
            for rows in wanted:
                layout = Layout(processes, tensor_parallel, rows, recompute)
                if needed(config, data, layout, bfloat16, device) <= USABLE * available:
                    return layout
    return None


def rows_of_process(data: DataConfig, processes: int, tensor_parallel: int) -> int:
    """Rows of a batch that each process reads."""
    return data.batch_tokens // data.sequence_length // max(1, processes // tensor_parallel)


def needed(config: GPTNeoXConfig, data: DataConfig, layout: Layout, bfloat16: bool, device: str) -> float:
    """Bytes a process of a step, all parts of `memory`."""
    accumulates = layout.rows < rows_of_process(data, layout.processes, layout.tensor_parallel)
    return sum(memory(config, data.sequence_length, layout, accumulates, bfloat16, device).values())


def chosen(
    config: GPTNeoXConfig, data: DataConfig, train: TrainConfig, processes: int, available: float, device: str,
    bfloat16: bool,
) -> Layout:  # fmt: skip
    """How `pretrain` divides a step: the recipe's rows, and its recomputed layers; where it names none, the least
    number of them that fits, or the one that needs the least memory where none does."""
    rows = min(data.micro_batch_rows, rows_of_process(data, processes, train.tensor_parallel))
    every = config.num_hidden_layers
    layouts = [Layout(processes, train.tensor_parallel, rows, number) for number in range(every + 1)]
    if train.recompute_layers is not None:
        return layouts[min(train.recompute_layers, every)]
    size = partial(needed, config, data, bfloat16=bfloat16, device=device)
    smallest = min(layouts[0], layouts[-1], key=size)  # one alone needs more than none: its own, while it works
    if size(smallest) > USABLE * available:
        return smallest
    return next(layout for layout in layouts if size(layout) <= USABLE * available)


def choice(config: GPTNeoXConfig, train: TrainConfig, layout: Layout) -> str:
    """A line that tells of layers that `chosen` chose to recompute; empty where there are none."""
    if train.recompute_layers is not None or not layout.recompute:
        return ""
    return (
        f"{layout.recompute} of {config.num_hidden_layers} layers are computed again in the backward pass, so that "
        f"{layout.rows} rows fit (train.recompute_layers)"
    )


def check_fits(
    config: GPTNeoXConfig, data: DataConfig, train: TrainConfig, processes: int, available: float, device: str,
    bfloat16: bool,
) -> Layout:  # fmt: skip
    """The layout that is `chosen`.

    Raises:
        JaneoxError: a step needs more memory than there is; says how much more, and what would fit.
    """
    layout = chosen(config, data, train, processes, available, device, bfloat16)
    size = needed(config, data, layout, bfloat16, device)
    if size <= available:
        return layout
    better = fitting(config, data, processes, train.tensor_parallel, available, bfloat16, device)
    advice = (
        f"data.micro_batch_rows={better.rows} train.recompute_layers={better.recompute} would fit"
        if better
        else "no micro-batch does; use more GPUs (`janeox plan` says how many) or a smaller model"
    )
    raise JaneoxError(
        f"a step needs about {size / GIB:.1f} GiB, {layout.recompute} layers recomputed, and there are "
        f"{available / GIB:.1f}: {(size - available) / GIB:.1f} too few; {advice}"
    )
