"""Attention as it is trained in bfloat16 on a CPU, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from janeox.attention import causal_attention


@pytest.mark.parametrize("shape", [(2, 3, 300, 32), (1, 2, 128, 64), (3, 1, 1, 16)])
def test_blocks_are_as_near_to_float32_as_pytorch_is(shape):
    B, H, T, D = shape
    random = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, H, 3, D, generator=random).bfloat16().permute(3, 0, 2, 1, 4)  # as the model cuts it
    grad = torch.randn(B, T, H, D, generator=random).bfloat16().transpose(1, 2)

    def results(attend, dtype):
        q, k, v = (x.to(dtype).detach().requires_grad_() for x in qkv)
        out = attend(q, k, v)
        return [out, *torch.autograd.grad(out, (q, k, v), grad.to(dtype))]

    def theirs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    exact = results(theirs, torch.float32)
    for mine, rounded, wanted in zip(
        results(causal_attention, torch.bfloat16), results(theirs, torch.bfloat16), exact, strict=True
    ):
        assert (mine - wanted).norm() <= 2 * (rounded - wanted).norm() + 1e-6 * grad.norm()
    seen = causal_attention(*(x.clone().requires_grad_() for x in qkv))
    last = qkv.clone()
    last[1:, :, :, -1] = 9.0  # the last key and value, which earlier queries do not see
    assert torch.equal(seen[:, :, :-1], causal_attention(*(x.requires_grad_() for x in last))[:, :, :-1])
