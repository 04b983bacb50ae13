"""What is trained: loss and gradients against transformers', documents in one row, portions of a batch."""

import pytest
import torch
from transformers import GPTNeoXForCausalLM

from janeox.config import OptimConfig, TrainConfig
from janeox.model import GPTNeoX
from janeox.native import library
from janeox.train.loop import split, take_step
from janeox.train.loss import _slice_to_gradient, _to_gradient, next_token_loss
from janeox.train.optim import build
from janeox.train.parallel import World
from janeox.train.pretrain import next_token_objective
from test_model import shape, theirs


@pytest.mark.parametrize("number", range(8))
def test_loss_and_gradients_equal_transformers(number, tmp_path):
    config = shape(number)
    reference: GPTNeoXForCausalLM = theirs(config, number)
    reference.save_pretrained(tmp_path)
    model = GPTNeoX.from_pretrained(tmp_path).requires_grad_(True)
    rows = torch.randint(0, config.vocab_size, (3, 24))
    expected = reference(rows, labels=rows).loss
    expected.backward()
    loss, count = next_token_objective(model, rows)
    (loss / count).backward()
    assert torch.allclose(loss / count, expected, rtol=1e-6)
    wanted = {name.replace("lm_head", "embed_out"): value.grad for name, value in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("number", range(4))
def test_documents_in_a_row_are_read_as_if_alone(number):
    """Loss and gradients of a packed row are those of its documents one by one."""
    config = shape(number)
    results = []
    lengths = [[5, 1, 9, 8], [23], [1, 1, 20, 1]]
    rows = [[torch.randint(4, config.vocab_size, (n - 1,)) for n in row] for row in lengths]
    starts = torch.tensor([config.eos_token_id])
    for packed in (True, False):
        model = GPTNeoX(config).initialize(torch.Generator().manual_seed(number))
        if packed:
            ids = torch.stack([torch.cat([torch.cat((starts, text)) for text in row] + [starts]) for row in rows])
            loss, count = next_token_objective(model, ids, separate=True)
            assert count == 3 * 23
        else:
            loss = torch.zeros(())
            for text in (text for row in rows for text in row):
                inputs, targets = torch.cat((starts, text)), torch.cat((text, starts))
                loss = loss + next_token_loss(model.hidden(inputs[None])[0], model.embed_out.weight, targets)
        loss.backward()
        results.append((loss.detach(), [parameter.grad for parameter in model.parameters()]))
    (loss, gradients), (expected, wanted) = results
    assert torch.allclose(loss, expected, rtol=1e-6)
    for mine, reference in zip(gradients, wanted, strict=True):
        assert torch.allclose(mine, reference, rtol=1e-4, atol=1e-5)


def test_a_batch_may_have_parts_by_name():
    """Ids, documents and a mask of what is to be learned, in any portions: one step."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 97, (5, 16), generator=generator)
    documents = (torch.rand(ids.shape, generator=generator) < 0.2).cumsum(1)
    learned = torch.rand(ids.shape, generator=generator) < 0.5  # ragged: each row counts by its own tokens
    batch = {"ids": ids, "documents": documents, "targets": torch.where(learned, ids.roll(-1, 1), -1)}
    assert [len(portion["ids"]) for portion in split(batch, 2)] == [2, 2, 1]

    def objective(model, rows):
        hidden = model.hidden(rows["ids"], documents=rows["documents"]).flatten(0, 1)
        return next_token_loss(hidden, model.embed_out.weight, rows["targets"].flatten()), (rows["targets"] >= 0).sum()

    steps = []
    for rows in (5, 2, 1):
        model = GPTNeoX(shape(0)).initialize(torch.Generator().manual_seed(0))
        optim = OptimConfig()
        optimizers = build(model, optim, model.config.head_dim)
        world = World(torch.device("cpu"))
        steps.append(
            take_step(model, optimizers, objective, batch, rows, 0.01, optim, TrainConfig(dtype="float32"), world)
        )
    for step in steps[1:]:
        assert step == pytest.approx(steps[0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_the_kernel_gives_the_loss_and_gradient_of_the_operations(dtype, z_loss):
    assert library() is not None
    random = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(37, 320, generator=random)).to(dtype)
    targets = torch.randint(0, 320, (37,), generator=random)
    targets[3] = -1
    exact = logits.double().requires_grad_()
    log_sum = exact.logsumexp(1)
    expected = (log_sum - exact.gather(1, targets.clamp(min=0)[:, None])[:, 0] + z_loss * log_sum**2) * (targets >= 0)
    expected.sum().backward()
    by_operations = logits.clone()
    assert torch.allclose(_slice_to_gradient(by_operations, targets, z_loss).double(), expected, rtol=1e-6, atol=1e-6)
    losses = torch.empty(37)
    _to_gradient(logits, targets, z_loss, losses)  # in place
    assert torch.allclose(losses.double(), expected, rtol=1e-6, atol=1e-6)
    for gradient in (logits, by_operations):
        assert torch.allclose(gradient.double(), exact.grad, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    assert not logits[3].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_kernel_hides_nothing_that_is_no_number(value):
    logits, losses = torch.zeros(2, 64), torch.empty(2)
    logits[1, 7] = value
    _to_gradient(logits, torch.zeros(2, dtype=torch.long), 0.0, losses)
    assert losses[0].isfinite() and losses[1].isnan()
