"""Loss, optimizers and schedule against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from janeox.config import GPTNeoXConfig, OptimConfig
from janeox.model import GPTNeoX
from janeox.train import loss
from janeox.train.optim import build, learning_rate, orthogonalize


@pytest.mark.parametrize("rows_a_block, rows_a_slice", [(1, 1), (7, 3), (16, 1000), (1000, 1000)])
def test_loss_and_gradients_equal_cross_entropy(rows_a_block, rows_a_slice, monkeypatch):
    monkeypatch.setitem(loss.BLOCK_BYTES, "cpu", 4 * 50 * rows_a_block)
    monkeypatch.setitem(loss.SLICE_BYTES, "cpu", 4 * 50 * rows_a_slice)
    torch.manual_seed(0)
    hidden, weight = torch.randn(33, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (33,))
    targets[::5] = -1
    expected = F.cross_entropy(hidden @ weight.T, targets, ignore_index=-1, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    ours = loss.next_token_loss(hidden, weight, targets)
    got = torch.autograd.grad(ours * 0.3, (hidden, weight))
    assert torch.allclose(ours, expected, rtol=1e-6)
    for mine, reference in zip(got, wanted, strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(loss.next_token_loss(hidden, weight, targets), expected, rtol=1e-6)


def test_loss_stands_huge_logits():
    hidden = torch.full((2, 1), 1e4, requires_grad=True)
    value = loss.next_token_loss(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
    assert value.item() == pytest.approx(2e4)


def small_model():
    return GPTNeoX(GPTNeoXConfig(97, 32, 2, 2, 64)).initialize(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer_and_only_matrices_decay(name):
    model = small_model()
    optimizers = build(model, OptimConfig(name=name), model.config.head_dim)
    owners: dict[int, float] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in owners
                owners[id(parameter)] = group["weight_decay"]
    for parameter in model.parameters():
        assert (owners[id(parameter)] > 0) == (parameter.ndim == 2)


def test_orthogonalize_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((32, 32), (64, 16), (16, 64), (3, 20, 20)):
        matrix = torch.randn(shape)
        result = orthogonalize(matrix)
        values = torch.linalg.svdvals(result)
        # The iteration's coefficients trade accuracy for speed: it ends between 0.7 and 1.2 (Jordan 2024).
        assert values.min() > 0.6 and values.max() < 1.25
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert F.cosine_similarity(result.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_muon_treats_q_k_and_v_apart():
    """One step on a fused matrix equals one step on each of its three parts, laid out (H, 3, D)."""
    model = small_model()
    torch.manual_seed(1)
    optimizers = build(model, OptimConfig(name="muon", learning_rate=0.1, weight_decay=0.0), model.config.head_dim)
    weight = model.gpt_neox.layers[0].attention.query_key_value.weight
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradient = weight.grad.clone()
    optimizers[1].step()
    # Nesterov's first step: the gradient plus 0.95 times its average, which is 0.05 of it.
    step = gradient * (1 - 0.95) + 0.95 * 0.05 * gradient
    parts = step.view(2, 3, 16, 32).unbind(1)
    expected = torch.stack([orthogonalize(part.reshape(32, 32)).view(2, 16, 32) for part in parts], 1).reshape(96, 32)
    assert torch.allclose(before - weight, 0.1 * 0.2 * 32**0.5 * expected, atol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_training_on_one_batch_learns_it(name):
    model = small_model()
    optimizers = build(model, OptimConfig(name=name, weight_decay=0.0), model.config.head_dim)
    ids = torch.randint(0, 97, (4, 17), generator=torch.Generator().manual_seed(0))
    for step in range(80):
        value = loss.next_token_loss(
            model.hidden(ids[:, :-1]).flatten(0, 1), model.embed_out.weight, ids[:, 1:].flatten()
        )
        value.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.step()
            optimizer.zero_grad()
        if step == 0:
            first = value.item()
    assert value.item() < 0.05 * first


def test_schedules():
    for name in ("cosine", "wsd"):
        config = OptimConfig(schedule=name, learning_rate=1.0 - 1e-9, warmup_fraction=0.1, final_fraction=0.1)
        rates = [learning_rate(step, 100, config) for step in range(100)]
        assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) == max(rates)
        assert rates[-1] == pytest.approx(0.1) and rates[10:] == sorted(rates[10:], reverse=True)
        assert learning_rate(0, 1, config) > 0
    assert rates[10:80] == pytest.approx([rates[9]] * 70)  # wsd stays


def test_z_loss_adds_the_squared_log_sum():
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (9,))
    targets[3] = -1
    logits = hidden @ weight.T
    squares = logits.logsumexp(1)[targets >= 0] ** 2
    expected = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum") + 0.1 * squares.sum()
    wanted = torch.autograd.grad(expected, (hidden, weight))
    ours = loss.next_token_loss(hidden, weight, targets, 0.1)
    assert torch.allclose(ours, expected, rtol=1e-6)
    for mine, reference in zip(torch.autograd.grad(ours, (hidden, weight)), wanted, strict=True):
        assert torch.allclose(mine, reference, atol=1e-4)


def test_first_weights_have_the_spread_of_their_scheme():
    config = GPTNeoXConfig(500, 64, 6, 4, 256)
    spreads = {"gpt2": (0.02, 0.02 / 12**0.5), "hf": (0.02, 0.02), "neox": ((2 / (5 * 64)) ** 0.5, 2 / (6 * 8))}
    for scheme, (inside, into_residual) in spreads.items():
        model = GPTNeoX(config).initialize(torch.Generator().manual_seed(0), scheme)
        layer = model.gpt_neox.layers[3]
        for matrix in (
            model.embed_out,
            model.gpt_neox.embed_in,
            layer.attention.query_key_value,
            layer.mlp.dense_h_to_4h,
        ):
            assert matrix.weight.std().item() == pytest.approx(inside, rel=0.05)
        for matrix in (layer.attention.dense, layer.mlp.dense_4h_to_h):
            assert matrix.weight.std().item() == pytest.approx(into_residual, rel=0.05)
