"""Attention as it is trained in bfloat16 on a CPU, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from janeox.attention import Documents, RotatedHeads, causal_attention, document_attention


@pytest.mark.parametrize("shape", [(2, 3, 300, 32), (1, 2, 128, 64), (3, 1, 1, 16)])
@pytest.mark.parametrize("mean_length", [None, 1, 40, 200])
def test_blocks_are_as_near_to_float32_as_pytorch_is(shape, mean_length):
    B, H, T, D = shape
    random = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, H, 3, D, generator=random).bfloat16().permute(3, 0, 2, 1, 4)  # as the model cuts it
    grad = torch.randn(B, T, H, D, generator=random).bfloat16().transpose(1, 2)
    numbers, mask = None, torch.ones(T, T, dtype=torch.bool).tril()
    if mean_length:
        numbers = (torch.rand(B, T, generator=random) < 1 / mean_length).cumsum(1)
        mask = mask & (numbers[:, None, :, None] == numbers[:, None, None, :])

    def results(attend, dtype):
        q, k, v = (x.to(dtype).detach().requires_grad_() for x in qkv)
        out = attend(q, k, v)
        return [out, *torch.autograd.grad(out, (q, k, v), grad.to(dtype))]

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def ours(q, k, v):
        return causal_attention(q, k, v) if numbers is None else document_attention(q, k, v, Documents(numbers))

    exact = results(theirs, torch.float32)
    for mine, rounded, wanted in zip(
        results(ours, torch.bfloat16), results(theirs, torch.bfloat16), exact, strict=True
    ):
        assert (mine - wanted).norm() <= 2 * (rounded - wanted).norm() + 1e-6 * grad.norm()
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(results(ours, torch.float32), exact, strict=True))


def test_keys_that_are_not_seen_change_nothing():
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 300, 32, generator=random).bfloat16().requires_grad_()
    numbers = (torch.arange(300) >= 150).long().expand(2, 300)
    for attend, unseen, blind in (
        (causal_attention, slice(299, 300), slice(299)),
        (lambda q, k, v: document_attention(q, k, v, Documents(numbers)), slice(150), slice(150, 300)),
    ):
        others = [x.detach().clone() for x in (k, v)]
        for x in others:
            x[:, :, unseen] = 9.0
        assert torch.equal(attend(q, k, v)[:, :, blind], attend(q, *others)[:, :, blind])


def test_heads_are_turned_in_one_compiled_graph():
    """What torch.compile cannot follow there breaks each layer on a GPU."""
    random = torch.Generator().manual_seed(0)
    qkv, grad = (torch.randn(2, 8, 2, 3, 16, generator=random) for _ in range(2))
    angles = torch.rand(1, 1, 8, 16, generator=random)
    results = []
    for turn in (RotatedHeads.apply, torch.compile(RotatedHeads.apply, backend="aot_eager", fullgraph=True)):
        x = qkv.clone().requires_grad_()
        heads = turn(x, angles.cos(), angles.sin())
        results.append([*heads, *torch.autograd.grad(heads, x, grad.permute(3, 0, 2, 1, 4).unbind())])
    assert all(torch.equal(plain, compiled) for plain, compiled in zip(*results, strict=True))
