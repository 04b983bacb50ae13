"""The native products and attention of training, by every set of kernels that this processor has, against float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from janeox.attention import Documents, native_attention
from janeox.engine.native_library import NativeEngine, NotCovered
from janeox.native import library
from janeox.native.training import attend, multiply, pay
from janeox.products import linear, product

pytestmark = pytest.mark.skipif(library() is None, reason="the native library was not built")
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def kernels() -> list[str]:
    found = []
    for name in ("avx512bf16", "avx512", "avx2", "neon"):
        try:
            found.append(NativeEngine(1, name).kernels)
        except NotCovered:
            continue
    return found


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 40).map(lambda n: 2 * n), st.integers(1, 200), st.sampled_from(list(CLOSE)),
    st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_all_three_products_of_a_matrix(M: int, K: int, N: int, dtype: torch.dtype, half: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    stored = dtype if half else torch.float32  # of the weights, and of their gradient
    x, grad = (torch.randn(M, size, generator=random).to(dtype) for size in (K, 2 * N))
    weight = torch.randn(2 * N, K, generator=random).to(stored)
    bias = torch.randn(2 * N, generator=random)
    rounded = weight.to(dtype).double()
    for name in kernels():
        out, to_x = torch.empty(M, 2 * N, dtype=dtype), torch.empty(M, K, dtype=dtype)
        to_weight = torch.empty(2 * N, K, dtype=stored)
        assert multiply(x, weight.T, out, bias, name)
        assert multiply(grad, weight, to_x, kernels=name)
        assert multiply(grad.T, x, to_weight, kernels=name)
        assert off(out, F.linear(x.double(), rounded, bias.double())) < CLOSE[dtype]
        assert off(to_x, grad.double() @ rounded) < CLOSE[dtype]
        assert off(to_weight, grad.double().T @ x.double()) < CLOSE[stored]


def test_products_deeper_than_a_block() -> None:
    """Sums that are begun in one block of the depth and ended in another."""
    for dtype in CLOSE:
        a, b = torch.randn(50, 5000).to(dtype), torch.randn(5000, 70).to(dtype)
        tall = torch.randn(5001, 50).to(dtype)  # of an odd number of tokens
        wide = torch.randn(5001, 70).to(dtype)
        for name in kernels():
            out, of_tall = torch.empty(50, 70, dtype=dtype), torch.empty(50, 70)
            assert multiply(a, b, out, kernels=name)
            assert multiply(tall.T, wide, of_tall, kernels=name)
            assert off(out, a.double() @ b.double()) < CLOSE[dtype]
            assert off(of_tall, tall.double().T @ wide.double()) < 1e-5


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x (B, H, T, D), cos and sin (B or 1, 1, T, R)."""
    first, second, rest = x.tensor_split((cos.shape[-1] // 2, cos.shape[-1]), dim=-1)
    turned = torch.cat((first, second), -1) * cos + torch.cat((-second, first), -1) * sin
    return torch.cat((turned, rest), -1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2), st.integers(2, 150), st.integers(1, 2), st.integers(1, 68).map(lambda n: 2 * n),
    st.floats(0, 1), st.booleans(), st.sampled_from(list(CLOSE)), st.integers(0, 2**31),
)  # fmt: skip
def test_attention_and_its_gradient(
    B: int, T: int, H: int, D: int, part: float, packed: bool, dtype: torch.dtype, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    qkv = torch.randn(B, T, H, 3, D, generator=random).to(dtype)
    grad = torch.randn(B, T, H, D, generator=random).to(dtype)
    angles = 7 * torch.randn(B if packed else 1, T, int(part * D / 2), generator=random)
    documents = Documents((torch.rand(B, T, generator=random) < 0.1).cumsum(1)) if packed else None
    begins = documents.begins.int() if documents else None

    exact = qkv.double().requires_grad_()
    q, k, v = exact.permute(3, 0, 2, 1, 4)
    cos, sin = (f(angles.double()).repeat(1, 1, 2)[:, None] for f in (torch.cos, torch.sin))
    mask = documents.mask if documents else None
    expected = F.scaled_dot_product_attention(
        rotated(q, cos, sin), rotated(k, cos, sin), v, attn_mask=mask, is_causal=mask is None
    ).transpose(1, 2)
    expected.backward(grad.double())
    for name in kernels():
        out, to_qkv = torch.empty_like(grad), torch.empty_like(qkv)
        assert attend(qkv, angles.cos(), angles.sin(), begins, out, kernels=name)
        assert attend(qkv, angles.cos(), angles.sin(), begins, to_qkv, grad, kernels=name)
        assert off(out, expected) < 2 * CLOSE[dtype]
        assert off(to_qkv, exact.grad) < 5 * CLOSE[dtype]


def test_what_is_no_number_stays_none() -> None:
    """Softmax must not hide it: the loop leaves out a batch whose loss is not finite."""
    for dtype in CLOSE:
        for value, which in ((torch.nan, 0), (torch.inf, 1), (torch.nan, 2)):
            qkv = torch.randn(1, 40, 2, 3, 16).to(dtype)
            qkv[0, 20, 1, which] = value
            for name in kernels():
                out = torch.empty(1, 40, 2, 16, dtype=dtype)
                assert attend(qkv, torch.ones(1, 40, 8), torch.zeros(1, 40, 8), None, out, kernels=name)
                assert out[0, :, 0].isfinite().all() and out[0, :18].isfinite().all()  # 18: of a block of six
                assert not out[0, 20, 1].isfinite().all()


only_where_used = pytest.mark.skipif(not pay(False), reason="PyTorch multiplies on this processor")


@only_where_used
@pytest.mark.parametrize("half", [False, True])
def test_linear_is_torchs(half: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 40, 64, requires_grad=True)
    weight, bias = (torch.randn(size, requires_grad=True) for size in ((96, 64), (96,)))
    results = []
    for function in (linear, F.linear):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = function(x, weight, bias)
        (out.float() ** 2).sum().backward()
        results.append([out.detach(), *(tensor.grad for tensor in (x, weight, bias))])
        x.grad = weight.grad = bias.grad = None
    assert "_Linear" in linear(x, weight, bias).grad_fn.name()
    for ours, torchs in zip(*results, strict=True):
        assert ours.dtype == torchs.dtype and ours.shape == torchs.shape
        assert off(ours, torchs.double()) < (2e-2 if half else 1e-5)


@only_where_used
def test_product_takes_any_layout() -> None:
    a, b = torch.randn(130, 64), torch.randn(64, 80)
    for left in (a, a.T.contiguous().T, torch.randn(130, 128)[:, ::2], torch.ones(1, 1).expand(130, 64)):
        for right in (b, b.T.contiguous().T, torch.randn(64, 160)[:, ::2]):
            assert off(product(left, right), left.double() @ right.double()) < 1e-5
    half = torch.randn(130, 65)[:, :64].bfloat16()
    assert off(product(half, b), half.double() @ b.bfloat16().double()) < 1e-2


@only_where_used
def test_attention_goes_to_torch_where_it_must() -> None:
    rotary = torch.ones(1, 1, 5, 8), torch.zeros(1, 1, 5, 8)
    assert native_attention(torch.randn(1, 5, 2, 3, 16), rotary, None) is not None
    assert native_attention(torch.randn(1, 5, 2, 3, 16, dtype=torch.float64), rotary, None) is None
    assert native_attention(torch.randn(1, 5, 2, 3, 15), rotary, None) is None
