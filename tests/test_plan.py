"""Predicted memory against what PyTorch holds; a plan's table, and its errors."""

import pytest
import torch

from janeox.config import DataConfig, GPTNeoXConfig, TrainConfig
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.train.cost import flops_per_token, num_parameters
from janeox.train.memory import GIB, USABLE, Layout, check_fits, memory
from runs import ROOT, janeox


@pytest.mark.parametrize("shape", [(97, 32, 2, 2, 64), (500, 96, 3, 6, 200), (300, 64, 1, 4, 256)])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_of_the_model(shape, tied):
    config = GPTNeoXConfig(*shape, tie_word_embeddings=tied)
    assert num_parameters(config) == sum(p.numel() for p in GPTNeoX(config).parameters())


def test_the_published_size():
    assert num_parameters(GPTNeoXConfig()) == 3_607_245_312
    assert (
        flops_per_token(GPTNeoXConfig(), 2048)
        == 6 * (3_607_245_312 - 36 * 36_608 - 5_632 - 90_112_000) + 12 * 36 * 2816 * 2048
    )


@pytest.mark.parametrize("bfloat16", [False, True])
def test_activations_are_those_that_autograd_keeps(bfloat16):
    config = GPTNeoXConfig(64, 96, 5, 6, 400)
    model = GPTNeoX(config).initialize(torch.Generator().manual_seed(0))
    weights = {parameter.numel() for parameter in model.parameters()}  # they and their bfloat16 copies
    kept = {}

    def keep(tensor):
        if tensor.numel() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        hidden = model.hidden(torch.randint(0, 64, (4, 200)))
    parts = memory(config, 200, Layout(1, 1, 4, 0), False, bfloat16, "cpu")
    assert hidden.requires_grad and sum(kept.values()) == pytest.approx(parts["activations"], rel=0.03)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_does_not_fit_is_said_with_what_would(bfloat16):
    config, train = GPTNeoXConfig(6144, 512, 8, 8, 2048), TrainConfig()
    data = DataConfig(sequence_length=1024, batch_tokens=64 * 1024, micro_batch_rows=32)

    def needed(rows, recompute):
        layout = Layout(1, 1, rows, recompute)
        return sum(memory(config, 1024, layout, rows < 64, bfloat16, "cpu").values())

    available = needed(4, 0) / USABLE + 1
    with pytest.raises(JaneoxError) as error:
        check_fits(config, data, train, 1, available, "cpu", bfloat16)
    too_few = (needed(32, 0) - available) / GIB
    assert f"{too_few:.1f} too few; data.micro_batch_rows=4 train.recompute_layers=0 would fit" in str(error.value)
    data.micro_batch_rows = 4  # the advice, followed
    check_fits(config, data, train, 1, available, "cpu", bfloat16)


def test_a_plan_says_what_fits():
    recipe = ROOT / "recipes" / "3.6b.toml"
    done = janeox("plan", recipe, "--gpu", "h100", "--num-gpus", "8")
    assert done.returncode == 0, done.stderr
    for part in ("3,607,245,312 parameters", "optimizer state", "GPU-hours", "sent by each GPU", "Not measured"):
        assert part in done.stdout.replace("\n", " ")
    done = janeox("plan", recipe, "model.num_hidden_layers=72")
    assert done.returncode == 1 and "does not fit 1 × H100" in done.stderr and "2 would do" in done.stderr
    assert "no multiple of train.tensor_parallel" in janeox("plan", recipe, "train.tensor_parallel=2").stderr
