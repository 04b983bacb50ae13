"""Several processes, as torchrun starts them: who is who, and the model cut among them. With one process, nothing.

Data parallelism with sharded weights, gradients and optimizer state (FSDP2, arXiv 2304.11277): each process reads its
own rows of a batch, and holds 1/size of every matrix. FSDP2 averages gradients over the processes; the loop multiplies
by their number and divides by that of the tokens of all.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from janeox.device import pick_device
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX


@dataclass(frozen=True)
class World:
    """The processes that train one model together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0


def join(device: str) -> World:
    """This process among those that torchrun started; alone without it.

    Raises:
        JaneoxError: no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(pick_device(device))
    where = pick_device(device)
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    return World(where, dist.get_rank(), size)


def shard(model: GPTNeoX, world: World) -> None:
    """Cuts a model that all processes hold alike, in place: layer by layer, and what is around them."""
    if world.size == 1:
        return
    mesh = dist.init_device_mesh(world.device.type, (world.size,))
    for layer in model.gpt_neox.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden")


def sync_gradients(model: GPTNeoX, now: bool) -> None:
    """Whether the next backward pass averages gradients over the processes, or only adds to this one's own."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def total(values: Tensor, world: World) -> Tensor:
    """Sum of a small tensor over all processes."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts on all processes; itself where it is not cut."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this process holds of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def whole_weights(model: GPTNeoX) -> dict[str, Tensor]:
    """All weights by name, put together on every process, in main memory where they were cut."""
    if not isinstance(model, FSDPModule):
        return model.state_dict()
    return {name: whole(tensor.detach()).cpu() for name, tensor in model.state_dict().items()}


def barrier(world: World) -> None:
    """Waits until all processes are here."""
    if world.size > 1:
        dist.barrier()


def check_rows(rows: int, world: World) -> None:
    """Raises JaneoxError where a batch does not divide among the processes."""
    if rows % world.size:
        raise JaneoxError(
            f"a batch has {rows} rows (data.batch_tokens / data.sequence_length), which {world.size} processes "
            f"cannot share evenly; make it a multiple of {world.size}"
        )
