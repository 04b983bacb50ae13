"""Saves: a Hugging Face folder, and what a run needs to go on: weights, optimizer state and the step.

The state is in PyTorch's distributed checkpoint format, which belongs to no number of processes and no way of cutting a
model, so a run may go on with others. There is nothing else to save: batches are a function of the step. Files are
written by a thread, from copies in main memory, while training goes on.
"""

import copy
import errno
import fcntl
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.utils._pytree import tree_map_only

from janeox.atomic import new_folder, partial_name
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.train.parallel import World, whole_weights

Optimizers = list[torch.optim.Optimizer]
MEMORY = "memory.pt"


class Saver:
    """Writes `folder/model` and `folder/state`, each whole or not at all; all processes call it alike.

    The model first: if the two are torn apart by a kill, the older state makes the same model again.

    Args:
        write_model: writes the files of `model/` from all weights by name.
        data: fingerprint of the training data.
        memory: what else is needed to go on, the same on all processes.
        keep: saves that stay.
    """

    def __init__(
        self, folder: Path, model: GPTNeoX, optimizers: Optimizers,
        write_model: Callable[[Path, dict[str, Tensor]], None],
        data: str, memory: dict[str, Any], keep: int, world: World,
    ):  # fmt: skip
        self.folder, self.model, self.optimizers, self.write_model = folder, model, optimizers, write_model
        self.data, self.memory, self.keep, self.world = data, memory, keep, world
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None  # of the threads
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int) -> None:
        """Begins to save what is known after `step` steps, once the save before is done.

        Raises:
            JaneoxError: the save before failed: the disk is full or cannot be written.
        """
        self.wait()
        state = _state(self.model, self.optimizers, step, self.data)
        if self.world.device.type == "cpu":  # else it has left the device already, and is a copy
            state = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), state)
        weights = state["model"] if self.world.mesh is None else whole_weights(self.model)
        memory = copy.deepcopy(self.memory)
        self._thread = threading.Thread(target=self._write, args=(step, weights, state, memory), name="save")
        self._thread.start()

    def wait(self) -> None:
        """Until the files are there. Raises as `save`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, step: int, weights: dict[str, Tensor], state: dict[str, Any], memory: dict[str, Any]) -> None:
        try:
            if self.world.is_first:
                with new_folder(self.folder / "model") as new:
                    self.write_model(new, weights)
            path = self.folder / "state"
            with new_folder(path) if self.world.is_first else nullcontext(partial_name(path)) as new:
                if self._group is not None:
                    dist.barrier(self._group)  # the folder is there
                try:
                    with _quiet():
                        dcp.save(state, checkpoint_id=new, process_group=self._group)
                except CheckpointException as error:
                    raise _os_error(error) from error
                if memory and self.world.is_first:
                    torch.save(memory, new / MEMORY)
            if self.world.is_first and self.keep > 1:
                self._keep(step)
        except BaseException as error:  # for `wait`, in the thread that trains
            self._error = error

    def _keep(self, step: int) -> None:
        """Links the save into kept/, where it takes no room while it is the newest, and removes the oldest."""
        kept = self.folder / "kept"
        with new_folder(kept / f"step-{step:08d}") as new:
            for part in ("model", "state"):
                shutil.copytree(self.folder / part, new / part, copy_function=os.link)
        for old in sorted(kept.glob("step-*"))[: -self.keep]:
            shutil.rmtree(old)


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Holds an existing folder, so that no other process trains into it meanwhile.

    Raises:
        JaneoxError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise JaneoxError(f"{folder}: another process trains there; wait for it, or give another --out") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def load_state(folder: Path, data: str, model: GPTNeoX, optimizers: Optimizers, memory: dict[str, Any]) -> int:
    """Restores model, optimizers and memory in place; returns the steps taken.

    Raises:
        JaneoxError: a damaged state, one of another model shape, or one made on other data.
    """
    state = _state(model, optimizers, 0, "")
    try:
        with _quiet():
            dcp.load(state, checkpoint_id=folder)
        if (folder / MEMORY).exists():
            memory |= torch.load(folder / MEMORY, weights_only=True)
    except (CheckpointException, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise JaneoxError(f"{folder}: cannot go on from it ({reason}); remove the folder to train anew") from error
    if state["data"] != data:
        raise JaneoxError(f"{folder}: belongs to a run on other data; train into another folder, or remove this one")
    set_state_dict(
        model,
        optimizers,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(flatten_optimizer_state_dict=True),
    )
    return state["step"]


def _state(model: GPTNeoX, optimizers: Optimizers, step: int, data: str) -> dict[str, Any]:
    """Everything by the name of its parameter, whatever groups the optimizers put them in; in main memory."""
    options = StateDictOptions(flatten_optimizer_state_dict=True, cpu_offload=model.device.type != "cpu")
    weights, optimizer = get_state_dict(model, optimizers, options=options)
    return {"model": weights, "optimizer": optimizer, "step": step, "data": data}


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
