"""The formulas of preference learning: against TRL's trainers and transformers' classes, PPO's against the papers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from janeox.model import GPTNeoX
from janeox.tune.dpo import dpo_objective, reply_logps
from janeox.tune.losses import (
    gae,
    group_advantages,
    grpo_loss,
    masked_mean,
    next_kl_coef,
    ppo_loss,
    token_logps,
    token_rewards,
    whiten,
)
from janeox.tune.pairs import batch, read_pairs, replies_batch
from janeox.tune.reward import calibration, reward_objective
from janeox.tune.reward_model import RewardModel
from tuning import pairs, write_jsonl, write_model


@pytest.fixture(scope="module")
def folder(tokenizer, works, tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses")
    write_model(folder / "base", tokenizer)
    write_model(folder / "other", tokenizer, seed=1)
    write_jsonl(folder / "pairs.jsonl", pairs(works, 6))
    return folder


@pytest.fixture(scope="module")
def rows(folder, tokenizer):
    return batch(read_pairs(tokenizer, [folder / "pairs.jsonl"], 128), tokenizer.pad_token_id)


def arguments(folder):
    return dict(output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False)


def same_gradients(ours, theirs):
    found = {name.replace("lm_head", "embed_out"): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, found[name], rtol=1e-3, atol=1e-6)


def test_reward_loss_gradients_and_files_are_those_of_trl_and_transformers(folder, tokenizer, rows, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
    from trl import RewardConfig, RewardTrainer

    model = RewardModel.from_language_model(GPTNeoX.from_pretrained(folder / "base"))
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    (tmp_path / "model").mkdir()
    model.write(tmp_path / "model", torch.float32, model.state_dict(), tokenizer.pad_token_id)
    tokenizer.save(tmp_path / "model")
    rival = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", attn_implementation="eager")
    assert type(rival).__name__ == "GPTNeoXForSequenceClassification"
    trainer = RewardTrainer(
        rival,
        RewardConfig(**arguments(tmp_path / "trl"), disable_dropout=True),
        train_dataset=Dataset.from_list([{"chosen_ids": [5, 6, 3], "rejected_ids": [5, 7, 3]}]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(tmp_path / "model"),
    )
    ids = torch.cat([rows["ids"][:, 0], rows["ids"][:, 1]])
    expected = trainer.compute_loss(trainer.model, {"input_ids": ids, "attention_mask": (ids != 0).long()})
    expected.backward()
    loss, count = reward_objective(model, rows)
    (loss / count).backward()
    assert count == 6
    assert (loss / count).item() == pytest.approx(expected.item(), rel=1e-5)
    same_gradients(model, trainer.model)
    again = RewardModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.score.weight, model.score.weight)


def test_dpo_loss_and_gradients_are_those_of_trl(folder, rows, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer

    load = lambda name: AutoModelForCausalLM.from_pretrained(folder / name, attn_implementation="eager")  # noqa: E731
    trainer = DPOTrainer(
        load("other"),
        ref_model=load("base"),
        args=DPOConfig(**arguments(tmp_path), beta=0.3),
        train_dataset=Dataset.from_list([{"prompt": "あ", "chosen": "い", "rejected": "う"}]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "base"),
    )
    ids, targets = (torch.cat([rows[name][:, 0], rows[name][:, 1]]) for name in ("ids", "targets"))
    completion = torch.zeros_like(ids)
    completion[:, 1:] = (targets >= 0)[:, :-1].long()
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "completion_mask": completion}
    expected = trainer.compute_loss(trainer.model, inputs)
    expected.backward()
    model = GPTNeoX.from_pretrained(folder / "other").requires_grad_(True)
    with torch.no_grad():
        reference = reply_logps(GPTNeoX.from_pretrained(folder / "base"), rows)
    loss, count = dpo_objective(model, rows | {"reference": reference}, beta=0.3)
    (loss / count).backward()
    assert (loss / count).item() == pytest.approx(expected.item(), rel=1e-4)
    same_gradients(model, trainer.model)


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_grpo_loss_and_gradients_are_those_of_trl(folder, tmp_path, beta):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    replies = [([5, 6], [7, 8, 9, 3]), ([5, 6], [700, 3]), ([9, 8, 4], [1000, 12, 13]), ([9, 8, 4], [600, 601, 602, 3])]
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.3, 0.7]), 2)
    sizes = dict(per_device_train_batch_size=4, num_generations=2, max_completion_length=4)
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder / "other", attn_implementation="eager"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(**arguments(tmp_path), **sizes, beta=beta, epsilon=0.2),
        train_dataset=Dataset.from_list([{"prompt": "あ"}]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "base", padding_side="left"),
    )
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    left = lambda ids, length: [0] * (length - len(ids)) + ids  # noqa: E731
    right = lambda ids, length: ids + [0] * (length - len(ids))  # noqa: E731
    inputs = {
        "prompt_ids": torch.tensor([left(prompt, 3) for prompt, _ in replies]),
        "completion_ids": torch.tensor([right(reply, 4) for _, reply in replies]),
        "advantages": advantages,
        "num_items_in_batch": torch.tensor(13),
    }
    inputs |= {name: (inputs[f"{name}_ids"] != 0).long() for name in ("prompt", "completion")}
    inputs |= {f"{name}_mask": inputs.pop(name) for name in ("prompt", "completion")}
    rows = replies_batch(replies, 0)
    model = GPTNeoX.from_pretrained(folder / "other").requires_grad_(True)
    base = GPTNeoX.from_pretrained(folder / "base")
    mask = rows["targets"] >= 0
    with torch.no_grad():
        reference = token_logps(base, rows["ids"], rows["targets"])[0]
    logps, _ = token_logps(model, rows["ids"], rows["targets"])
    old = logps.detach() + 0.5 * torch.linspace(-1, 1, mask.numel()).view(mask.shape) * mask  # some beyond the clip
    for name, values in (("old_per_token_logps", old), ("ref_per_token_logps", reference)):
        inputs[name] = torch.zeros(4, 4)
        for row, (_, reply) in enumerate(replies):
            inputs[name][row, : len(reply)] = values[row][mask[row]]
    expected = trainer._compute_loss(trainer.model, inputs)
    expected.backward()
    loss = grpo_loss(logps, old, reference if beta else None, advantages, mask, 0.2, beta)
    (loss.total / mask.sum()).backward()
    assert mask.sum() == 13 and loss.clipped > 0 and (loss.kl > 0) == bool(beta)
    assert (loss.total / mask.sum()).item() == pytest.approx(expected.item(), rel=1e-4)
    same_gradients(model, trainer.model)


def test_advantages_within_groups_are_the_papers():
    found = group_advantages(torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0]), 3)
    spread = ((4 + 1 + 9) / 2) ** 0.5
    assert found.tolist() == pytest.approx([-2 / spread, -1 / spread, 3 / spread, 0, 0, 0], rel=1e-3)


# PPO: the oracle is the papers' formulas written out, a reply at a time, on replies without padding.


def paper_gae(rewards, values, gamma, lam):
    """A_t = Σ_k (γλ)^k δ_{t+k} (arXiv 1506.02438, equation 16) as the double sum that it is."""
    T = len(rewards)
    after = [*values[1:], 0.0]
    delta = [rewards[t] + gamma * after[t] - values[t] for t in range(T)]
    return [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, T)) for t in range(T)]


def paper_ppo(logps, old, advantages, values, old_values, returns, epsilon, value_epsilon):
    """Sums of −min(ρA, clip(ρ)A) (arXiv 1707.06347, equation 7) and of ½ max of the two squared errors."""
    policy = value = 0.0
    for now, o, a, v, w, r in zip(logps, old, advantages, values, old_values, returns, strict=True):
        ratio = math.exp(now - o)
        policy -= min(ratio * a, min(max(ratio, 1 - epsilon), 1 + epsilon) * a)
        near = min(max(v, w - value_epsilon), w + value_epsilon)
        value += 0.5 * max((v - r) ** 2, (near - r) ** 2)
    return policy, value


numbers = st.floats(-2, 2, width=32)
replies = st.lists(st.lists(st.tuples(*[numbers] * 6), min_size=1, max_size=6), min_size=1, max_size=4)


def laid_out(drawn, column, junk=123.0):
    """(B, T) with junk before each reply, where its prompt is, and behind it."""
    T = max(len(reply) + 2 * row % 3 for row, reply in enumerate(drawn)) + 1
    table, mask = torch.full((len(drawn), T), junk), torch.zeros(len(drawn), T, dtype=torch.bool)
    for row, reply in enumerate(drawn):
        part = slice(2 * row % 3, 2 * row % 3 + len(reply))
        table[row, part] = torch.tensor([place[column] for place in reply])
        mask[row, part] = True
    return table, mask


@given(replies, st.floats(0.5, 1), st.floats(0, 1))
def test_gae_is_the_papers_sum_whatever_is_in_the_padding(drawn, gamma, lam):
    rewards, mask = laid_out(drawn, 0)
    values, _ = laid_out(drawn, 1)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    expected = [paper_gae([p[0] for p in reply], [p[1] for p in reply], gamma, lam) for reply in drawn]
    flat = torch.tensor([a for reply in expected for a in reply])
    torch.testing.assert_close(advantages[mask], flat, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(returns[mask], flat + values[mask], rtol=1e-4, atol=1e-4)
    assert not advantages[~mask].any() and not returns[~mask].any()


@given(replies)
def test_losses_are_the_papers_whatever_is_in_the_padding(drawn):
    columns = [laid_out(drawn, column)[0] for column in range(6)]
    mask = laid_out(drawn, 0)[1]
    loss = ppo_loss(*columns, mask, 0.2, 0.3)
    flat = list(zip(*[place for reply in drawn for place in reply], strict=True))
    policy, value = paper_ppo(*flat, 0.2, 0.3)
    assert loss.policy.item() == pytest.approx(policy, rel=1e-4, abs=1e-4)
    assert loss.value.item() == pytest.approx(value, rel=1e-4, abs=1e-4)
    other = [torch.where(mask, column, column * 0 - 7.0) for column in columns]
    assert ppo_loss(*other, mask, 0.2, 0.3) == loss


@given(replies)
def test_rewards_of_tokens(drawn):
    logps, mask = laid_out(drawn, 0)
    reference, _ = laid_out(drawn, 1, junk=-5.0)
    scores = torch.tensor([reply[0][2] for reply in drawn])
    found = token_rewards(scores, logps, reference, mask, 0.1)
    for row, reply in enumerate(drawn):
        expected = [-0.1 * (place[0] - place[1]) for place in reply]
        expected[-1] += reply[0][2]
        torch.testing.assert_close(found[row][mask[row]], torch.tensor(expected), rtol=1e-4, atol=1e-5)
    assert not found[~mask].any()


@given(replies)
def test_whitening_sees_the_mask_only(drawn):
    values, mask = laid_out(drawn, 0)
    white = whiten(values, mask)
    real = values[mask]
    expected = (real - real.mean()) / (real.var(correction=0) + 1e-8).sqrt()
    torch.testing.assert_close(white[mask], expected, rtol=1e-3, atol=1e-3)
    assert masked_mean(values, mask).item() == pytest.approx(real.mean().item(), rel=1e-4, abs=1e-5)


def test_the_gradient_is_that_of_the_paper():
    """At ratio 1 the policy's gradient is −A; past the clip, on the side where it holds, 0."""
    logps = torch.tensor([[0.0, 0.5, -0.5, 0.5]], requires_grad=True)
    advantages = torch.tensor([[2.0, 1.0, 1.0, -1.0]])
    zeros, mask = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    ppo_loss(logps, zeros, advantages, zeros, zeros, zeros, mask, 0.2, 0.2).policy.backward()
    expected = torch.tensor([[-2.0, 0.0, -math.exp(-0.5), math.exp(0.5)]])
    torch.testing.assert_close(logps.grad, expected)


def test_kl_coefficient():
    assert next_kl_coef(0.1, 6.0, 6.0, 64, 10_000) == 0.1
    assert next_kl_coef(0.1, 60.0, 6.0, 64, 10_000) == pytest.approx(0.1 * (1 + 0.2 * 64 / 10_000))
    assert next_kl_coef(0.1, 5.4, 6.0, 64, 10_000) == pytest.approx(0.1 * (1 - 0.1 * 64 / 10_000))
    assert next_kl_coef(0.1, 60.0, 0.0, 64, 10_000) == 0.1


def test_calibration_of_a_model_that_is_as_right_as_it_is_sure():
    margins = torch.tensor([math.log(3)] * 3 + [-math.log(3)])  # sure to 3/4, right in 3 of 4
    ((share, sure, right),) = calibration(margins)
    assert (share, right) == (1.0, 0.75)
    assert sure == pytest.approx(0.75)
