"""What a run needs to go on: weights, optimizer state and the step, in PyTorch's distributed checkpoint format.

That format belongs to no number of ranks, so a run may go on with more or fewer of them. There is nothing else to save:
batches are a function of the step.
"""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from janeox.atomic import new_folder, partial_name
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.train.parallel import World, barrier

MEMORY = "memory.pt"


def save_state(
    folder: Path,
    step: int,
    data: str,
    model: GPTNeoX,
    optimizers: list[torch.optim.Optimizer],
    world: World,
    memory: dict[str, Any] | None = None,
) -> None:
    """Writes `folder`, whole or not at all; all processes call it and each writes its part.

    Args:
        step: optimizer steps taken.
        data: fingerprint of the training data.
        memory: what else is needed to go on, the same on all processes.

    Raises:
        JaneoxError: the disk is full or cannot be written.
    """
    weights, optimizer = get_state_dict(model, optimizers)
    with new_folder(folder) if world.is_first else nullcontext(partial_name(folder)) as new:
        barrier(world)  # the folder is there
        try:
            with _quiet():
                dcp.save({"model": weights, "optimizer": optimizer, "step": step, "data": data}, checkpoint_id=new)
        except CheckpointException as error:
            raise _os_error(error) from error
        if memory and world.is_first:
            torch.save(memory, new / MEMORY)


def load_state(
    folder: Path,
    data: str,
    model: GPTNeoX,
    optimizers: list[torch.optim.Optimizer],
    memory: dict[str, Any] | None = None,
) -> int:
    """Restores model, optimizers and memory in place; returns the steps taken.

    Raises:
        JaneoxError: a damaged state, one of another model shape, or one made on other data.
    """
    weights, optimizer = get_state_dict(model, optimizers)
    state: dict[str, Any] = {"model": weights, "optimizer": optimizer, "step": 0, "data": ""}
    try:
        with _quiet():
            dcp.load(state, checkpoint_id=folder)
        if memory is not None and (folder / MEMORY).exists():
            memory |= torch.load(folder / MEMORY, weights_only=True)
    except (CheckpointException, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise JaneoxError(f"{folder}: cannot go on from it ({reason}); remove the folder to train anew") from error
    if state["data"] != data:
        raise JaneoxError(f"{folder}: belongs to a run on other data; train into another folder, or remove this one")
    set_state_dict(model, optimizers, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return state["step"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _os_error(error: CheckpointException) -> OSError:
    """The disk's own error behind a failed save; PyTorch's writers bury it under errors of their own."""
    for cause, _ in error.failures.values():
        buried: BaseException | None = cause
        while buried is not None:
            if isinstance(buried, OSError):
                return buried
            buried = buried.__cause__ or buried.__context__
    return OSError(errno.EIO, str(error).splitlines()[0])
