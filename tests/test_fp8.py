"""8-bit products: their loss beside bfloat16's, on a CPU, where PyTorch has them too; and where they cannot be."""

import pytest
import torch
from torch import nn

from janeox.config import GPTNeoXConfig, OptimConfig, TrainConfig
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.train.fp8 import Float8Linear, check_float8, use_float8
from janeox.train.loop import recompute_layers, take_step
from janeox.train.optim import build
from janeox.train.parallel import World
from janeox.train.pretrain import next_token_objective

CONFIG = GPTNeoXConfig(64, 64, 2, 4, 256)
CPU = torch.device("cpu")


def model(fp8, recompute=0):
    made = GPTNeoX(CONFIG).initialize(torch.Generator().manual_seed(0))
    if fp8:
        use_float8(made)
    recompute_layers(made, recompute)
    return made


def losses(trained, steps):
    """Of training on rows in which each token hangs on the one before."""
    optim, train = OptimConfig(), TrainConfig(dtype="bfloat16")
    optimizers = build(trained, optim, CONFIG.head_dim)
    random = torch.Generator().manual_seed(1)
    nexts = torch.randint(0, 64, (64, 3), generator=random)
    found = []
    for _ in range(steps):
        rows = torch.randint(0, 64, (8, 1), generator=random)
        for _ in range(32):
            choice = torch.randint(0, 3, (8,), generator=random)
            rows = torch.cat((rows, nexts[rows[:, -1], choice][:, None]), 1)
        found.append(take_step(trained, optimizers, next_token_objective, rows, 8, 3e-3, optim, train, World(CPU))[0])
    return torch.tensor(found)


def test_the_loss_is_that_of_bfloat16_within_two_percent():
    plain, coarse = losses(model(False), 100), losses(model(True), 100)
    assert plain[-10:].mean() < 0.5 * plain[0]  # it learns
    assert not torch.equal(plain, coarse)
    for part in range(0, 100, 10):
        assert coarse[part : part + 10].mean().item() == pytest.approx(plain[part : part + 10].mean().item(), rel=0.02)


def test_products_are_as_near_as_8_bits_allow():
    random = torch.Generator().manual_seed(0)
    linear = nn.Linear(96, 48)
    x = torch.randn(2, 16, 96, generator=random).requires_grad_()
    grad = torch.randn(2, 16, 48, generator=random)
    results = []
    for kind in (nn.Linear, Float8Linear):
        linear.__class__ = kind
        y = linear(x)
        results.append([y, *torch.autograd.grad(y, (x, linear.weight, linear.bias), grad.to(y.dtype))])
    for exact, coarse, bound in zip(*results, (0.04, 0.07, 0.07, 0.01), strict=True):
        assert coarse.dtype == exact.dtype or coarse.dtype == torch.bfloat16
        assert 0 < (coarse - exact).norm() <= bound * exact.norm()
    with torch.no_grad():
        assert torch.equal(linear(x), results[0][0])  # not to be differentiated: as without


def test_weights_keep_names_and_layers_may_be_computed_again():
    assert list(model(True).state_dict()) == list(model(False).state_dict())
    assert torch.equal(losses(model(True), 3), losses(model(True, recompute=1), 3))


def test_where_it_cannot_be_is_said(monkeypatch):
    with pytest.raises(JaneoxError, match=r"compute capability 8\.9 or later.*cpu has none"):
        check_float8(CPU, 2, 64, 1)
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(JaneoxError, match=r"this one has 8\.0"):
        check_float8(gpu, 2, 64, 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    check_float8(gpu, 2, 64, 1)
    with pytest.raises(JaneoxError, match="tensor_parallel"):
        check_float8(gpu, 2, 64, 2)
    with pytest.raises(JaneoxError, match="no multiple of 16"):
        check_float8(gpu, 1, 40, 1)
    with pytest.raises(JaneoxError, match="hidden_size = 72"):
        use_float8(GPTNeoX(GPTNeoXConfig(64, 72, 2, 4, 256)))
    with pytest.raises(JaneoxError, match="contradict"):
        TrainConfig(fp8=True, dtype="float32")
