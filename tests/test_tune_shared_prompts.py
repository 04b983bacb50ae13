"""Replies packed without padding, behind prompts that are read once, say what each row says by itself."""

import copy

import pytest
import torch

from janeox.model import GPTNeoX
from janeox.tune.losses import token_logps
from janeox.tune.pairs import replies_batch
from janeox.tune.shared_prompts import pack
from tuning import SHAPE

LENGTHS = [[3, 1, 7], [40], [5, 5, 5, 30, 2], [1], [12, 60]]  # of the replies to five prompts


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    return GPTNeoX(SHAPE).initialize(generator).double()


@pytest.fixture(scope="module")
def batch():
    """Replies in an order that separates those to one prompt."""
    generator = torch.Generator().manual_seed(1)

    def tokens(number):
        return torch.randint(4, SHAPE.vocab_size, (number,), generator=generator).tolist()

    rows = [(prompt, tokens(length)) for some in LENGTHS for prompt in [tokens(9)] for length in some]
    order = torch.randperm(len(rows), generator=generator).tolist()
    return replies_batch([rows[place] for place in order], 0)


def plain_logps(model, batch):
    """Row by row, in the formula itself."""
    log_p = model(batch["ids"]).log_softmax(2)
    entropies = -(log_p.exp() * log_p).sum(2)
    mask = batch["targets"] >= 0
    return log_p.gather(2, batch["targets"].clamp(min=0)[..., None])[..., 0] * mask, entropies * mask


def test_log_probabilities_and_gradients_are_those_of_the_rows(model, batch):
    weights = torch.randn(batch["ids"].shape, generator=torch.Generator().manual_seed(2))
    found = []
    for compute in (lambda: plain_logps(model, batch), lambda: token_logps(model, batch["ids"], batch["targets"])):
        model.requires_grad_(True).zero_grad()
        logps, entropies = compute()
        (logps * weights).sum().backward()
        found.append([logps.detach(), entropies.detach(), *(p.grad.clone() for p in model.parameters())])
    for ours, plain in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours.double(), plain, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(token_logps(model, batch["ids"], batch["targets"])[0], found[1][0])


def test_each_token_is_read_once(batch):
    texts, places = pack(batch["ids"], batch["targets"])
    replies = sum(length - 1 for some in LENGTHS for length in some)  # nothing is chosen after the last token
    assert texts.ids.shape == (1, 9 * len(LENGTHS) + replies)
    assert len(places) == int((batch["targets"] >= 0).sum())


def test_half_precision_is_near(model, batch):
    """As near to the exact gradients as row by row in the same precision is."""
    weights = torch.randn(batch["ids"].shape, generator=torch.Generator().manual_seed(2))
    half = copy.deepcopy(model).bfloat16().requires_grad_(True)

    def found(model, compute):
        model.zero_grad()
        (compute(model) * weights).sum().backward()
        return torch.cat([p.grad.double().flatten() for p in model.parameters()])

    def ours(model):
        return token_logps(model, batch["ids"], batch["targets"])[0]

    def plain(model):
        return plain_logps(model, batch)[0]

    exact = found(model.requires_grad_(True), plain)
    assert (found(half, ours) - exact).norm() < 1.5 * (found(half, plain) - exact).norm()
