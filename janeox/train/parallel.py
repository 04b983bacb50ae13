"""Several processes, as torchrun starts them: who is who, and the model cut among them. With one process, nothing.

They form a grid, data × model. Along `data`, each reads its own rows of a batch and holds a part of every matrix, its
gradient and its optimizer state (FSDP2, arXiv 2304.11277). Along `model`, all read the same rows, and each computes
some of the heads and of the hidden units of the MLP (tensor parallelism, arXiv 1909.08053). FSDP2 averages gradients
over `data`; the loop multiplies by its size and divides by the tokens of all.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from janeox.config import GPTNeoXConfig
from janeox.device import bfloat16_products, pick_device
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX

# The first matrix of each pair is cut along its rows, the second along its columns: one sum over the processes a pair.
COLUMNS = ("attention.query_key_value", "mlp.dense_h_to_4h")
ROWS = ("attention.dense", "mlp.dense_4h_to_h")


@dataclass(frozen=True)
class World:
    """The processes that train one model together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    tensor_parallel: int = 1
    """Processes along `model`."""
    mesh: DeviceMesh | None = None
    """The grid; none where one process is alone."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        return self.rank // self.tensor_parallel

    @property
    def data_size(self) -> int:
        return self.size // self.tensor_parallel


def join(device: str, tensor_parallel: int = 1) -> World:
    """This process among those that torchrun started; alone without it.

    Raises:
        JaneoxError: no such device, or their number is no multiple of `tensor_parallel`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size % tensor_parallel:
        raise JaneoxError(
            f"train.tensor_parallel = {tensor_parallel} does not divide the number of processes, {size}; start a "
            f"multiple of it: torchrun --nproc-per-node={tensor_parallel * max(1, round(size / tensor_parallel))} …"
        )
    if size == 1:
        return World(pick_device(device))
    where = pick_device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    if not dist.is_initialized():
        dist.init_process_group("cuda:nccl,cpu:gloo" if where.type == "cuda" else "gloo")
    mesh = dist.init_device_mesh(
        where.type, (size // tensor_parallel, tensor_parallel), mesh_dim_names=("data", "model")
    )
    return World(where, dist.get_rank(), size, tensor_parallel, mesh)


def shard(model: GPTNeoX, world: World, dtype: str = "float32") -> None:
    """Cuts a model among the processes, in place: layer by layer, and what is around them.

    No process holds more than its own part and one whole layer.
    """
    if world.mesh is None:
        return
    if world.tensor_parallel > 1:
        plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in COLUMNS}
        plan |= {name: RowwiseParallel() for name in ROWS}
        for layer in model.gpt_neox.layers:
            parallelize_module(layer, world.mesh["model"], plan)
    policy = MixedPrecisionPolicy()
    if bfloat16_products(dtype, world.device):  # weights travel in bfloat16, gradients are summed in float32
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for module in (*model.gpt_neox.layers, model):
        fully_shard(module, mesh=world.mesh["data"], mp_policy=policy, shard_placement_fn=_other_dim)
    register_fsdp_forward_method(model, "hidden")


def _other_dim(parameter: nn.Parameter) -> Shard | None:
    """The dimension to cut along `data`: not the one that tensor parallelism cuts already."""
    cut_by_rows = isinstance(parameter, DTensor) and parameter.placements == (Shard(0),)
    return Shard(1) if cut_by_rows and parameter.ndim == 2 else None


def sync_gradients(model: GPTNeoX, now: bool) -> None:
    """Whether the next backward pass averages gradients over the processes, or only adds to this one's own."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def total(values: Tensor, world: World) -> Tensor:
    """Sum of a small tensor over the processes that read different rows."""
    if world.mesh is not None:
        dist.all_reduce(values, group=world.mesh.get_group("data"))
    return values


def anywhere(flag: bool, world: World) -> bool:
    """Whether it is true on any of the processes."""
    if world.mesh is None:
        return flag
    value = torch.tensor(float(flag), device=world.device)
    dist.all_reduce(value)
    return value.item() > 0


def least(value: int, world: World) -> int:
    """The smallest on any of the processes."""
    if world.mesh is None:
        return value
    found = torch.tensor(value, device=world.device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found.item())


def gradient_norm(gradients: list[Tensor]) -> float:
    """Of all gradients as one vector, however they are cut."""
    norms = [whole(torch.nn.utils.get_total_norm(group)) for group in by_mesh(gradients)]
    return torch.stack(norms).norm().item()


def by_mesh(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Tensors that are cut over the same processes together, as PyTorch's operations on lists want them."""
    groups: dict[DeviceMesh | None, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.device_mesh if isinstance(tensor, DTensor) else None, []).append(tensor)
    return list(groups.values())


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts on all processes; itself where it is not cut."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this process holds of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole_weights(model: GPTNeoX) -> dict[str, Tensor]:
    """All weights by name, put together on every process, in main memory."""
    return {name: whole(tensor.detach()).cpu() for name, tensor in model.state_dict().items()}


def check_rows(rows: int, world: World) -> None:
    """Raises JaneoxError where a batch does not divide among the processes."""
    if rows % world.data_size:
        raise JaneoxError(
            f"a batch has {rows} rows (data.batch_tokens / data.sequence_length), which {world.data_size} processes "
            f"cannot share evenly; make it a multiple of {world.data_size}"
        )


def check_heads(config: GPTNeoXConfig, tensor_parallel: int) -> None:
    """Raises JaneoxError where a model's heads or hidden units do not divide among the processes along `model`."""
    for name in ("num_attention_heads", "intermediate_size"):
        if getattr(config, name) % tensor_parallel:
            heads = config.num_attention_heads
            ways = [n for n in range(1, heads + 1) if heads % n == 0 and config.intermediate_size % n == 0]
            raise JaneoxError(
                f"train.tensor_parallel = {tensor_parallel} does not divide model.{name} = {getattr(config, name)}; "
                f"this model can be cut {', '.join(map(str, ways))} ways"
            )
