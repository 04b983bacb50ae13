"""PPO and GRPO as verbs: they learn, go on exactly from any step, and name bad rewards."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from janeox.model import GPTNeoX
from janeox.tune.losses import token_logps
from janeox.tune.pairs import replies_batch
from janeox.tune.ppo import Policy
from janeox.tune.rollout import Writer, checked_scores
from runs import janeox, metrics
from test_tune_reward import killed_after
from tuning import pairs, write_jsonl, write_model


def share_of_kana(texts: list[str]) -> list[float]:
    """A reward that is easily earned: how much of a reply is hiragana."""
    return [sum("ぁ" <= character <= "ん" for character in text) / max(1, len(text)) for text in texts]


def raises(texts: list[str]) -> list[float]:
    raise ValueError("out of order")


def nothing(texts: list[str]) -> list[float]:
    return []


def not_a_number(texts: list[str]) -> list[float]:
    return [0.5] * (len(texts) - 1) + [float("nan")]


@pytest.fixture(scope="module")
def folder(tokenizer, works, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ppo")
    write_model(folder / "base", tokenizer)
    write_jsonl(folder / "prompts.jsonl", pairs(works, 32))
    return folder


OWN = {
    "ppo": ["--iterations", 6, "--kl-coef", "0.001"],
    "grpo": ["--iterations", 12, "--num-generations", 4, "--beta", "0.001"],
}
LOSSES = {"ppo": ("objective/scores", "objective/kl", "policy/entropy_avg", "loss/value_avg"), "grpo": ("reward", "kl")}


def arguments(folder, out, reward="test_tune_ppo:share_of_kana", verb="ppo"):
    command = [verb, "--model", folder / "base", "--data", folder / "prompts.jsonl", "--reward", reward]
    command += ["--out", out, "--max-tokens", 12, "--batch-rows", 32, "--micro-batch-rows", 16]
    command += ["--num-ppo-epochs", 2, "--num-mini-batches", 2, "--optim.learning-rate", "1e-2", *OWN[verb]]
    command += ["--train.dtype", "float32", "--train.log-every", 1, "--train.sample-every", 0, "--train.save-every", 3]
    return command


@pytest.mark.parametrize("verb", ["ppo", "grpo"])
def test_earns_more_and_goes_on_exactly_in_the_middle_of_an_iteration(folder, tmp_path, verb):
    done = janeox(*arguments(folder, tmp_path / "whole", verb=verb))
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "whole")
    score, kl, *_ = LOSSES[verb]
    assert rows[-1][score] > rows[0][score] + 0.1
    assert rows[-1]["episode"] == 32 * OWN[verb][1]
    entropy = rows[-1]["policy/entropy_avg" if verb == "ppo" else "entropy"]
    assert 0 < entropy < 7.7  # a mean over tokens: at most ln 2000
    killed_after(6, lambda: janeox(*arguments(folder, tmp_path / "cut", verb=verb)))  # step 6 of 4 an iteration
    assert janeox(*arguments(folder, tmp_path / "cut", verb=verb)).returncode == 0
    assert metrics(tmp_path / "cut") == rows
    whole, cut = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    GPTNeoX.from_pretrained(tmp_path / "whole" / "model")  # without the value head
    assert 0 < rows[0]["sampling/sampling_logp_difference/mean"] < 1e-4  # in float32 two ways agree
    assert rows[0][LOSSES[verb][1]] == pytest.approx(0, abs=1e-4) and rows[-1][kl] > 0.01


@pytest.mark.parametrize("verb", ["ppo", "grpo"])
def test_adapters_are_merged_to_write_and_switched_off_for_the_reference(folder, tmp_path, verb):
    kl = LOSSES[verb][1]
    rank = ["--lora-rank", 8, "--lora-alpha", 32]
    done = janeox(*arguments(folder, tmp_path / "whole", verb=verb), *rank)
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "whole")
    # What wrote and what measured were the same in every iteration: the adapters were merged into the one and on in the
    # other. The reference stays what it was.
    assert max(row["sampling/sampling_logp_difference/mean"] for row in rows) < 1e-4
    assert rows[0][kl] == pytest.approx(0, abs=1e-4) and rows[-1][kl] > 0.01
    killed_after(6, lambda: janeox(*arguments(folder, tmp_path / "cut", verb=verb), *rank))
    assert janeox(*arguments(folder, tmp_path / "cut", verb=verb), *rank).returncode == 0
    assert metrics(tmp_path / "cut") == rows
    base, tuned = (GPTNeoX.from_pretrained(path) for path in (folder / "base", tmp_path / "whole" / "model"))
    assert torch.equal(base.embed_out.weight, tuned.embed_out.weight)
    ids = torch.tensor([[5, 6, 700, 8]])
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32), str(tmp_path / "whole" / "adapter")
    )
    torch.testing.assert_close(adapted(ids).logits, tuned(ids), rtol=1e-4, atol=1e-4)
    assert (base(ids) - tuned(ids)).abs().max() > 0.01


def test_a_reward_model_can_be_the_reward(folder, tmp_path):
    command = ["reward", "--model", folder / "base", "--data", folder / "prompts.jsonl", "--out", tmp_path / "reward"]
    command += ["--max-tokens", 64, "--batch-rows", 8, "--optim.learning-rate", "1e-3", "--train.dtype", "float32"]
    assert janeox(*command).returncode == 0
    done = janeox(*arguments(folder, tmp_path / "run", tmp_path / "reward" / "model"), "--iterations", 2)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run")[-1]["objective/scores"] != 0
    done = janeox(*arguments(folder, tmp_path / "other", folder / "base"))
    assert done.returncode == 1 and "no reward model" in done.stderr


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("test_tune_ppo:raises", "raised ValueError: out of order"),
        ("test_tune_ppo:nothing", "returned 0 scores for 32 replies"),
        ("test_tune_ppo:not_a_number", "gave nan to reply 31"),
        ("test_tune_ppo:missing", "no such function"),
        ("nowhere", "no such folder"),
    ],
)
def test_a_bad_reward_is_named(folder, tmp_path, reward, says):
    done = janeox(*arguments(folder, tmp_path / "run", reward))
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert not (tmp_path / "run" / "state").exists()


def test_scores_are_checked():
    assert checked_scores(lambda texts: [1, 2.5], "f", ["a", "b"]) == [1.0, 2.5]


def test_rollouts_round_as_the_training_does(folder, tmp_path):
    """With products in bfloat16, what wrote and what learns are the same model up to that rounding."""
    command = [*arguments(folder, tmp_path / "half"), "--train.dtype", "bfloat16", "--iterations", 1]
    done = janeox(*command)
    assert done.returncode == 0, done.stderr
    assert 1e-4 < metrics(tmp_path / "half")[0]["sampling/sampling_logp_difference/mean"] < 0.03


def test_what_was_sampled_is_what_is_learned_from(folder):
    """Log-probabilities of the engine, of the training pass, and of the model alone are the same."""
    policy = Policy.from_language_model(GPTNeoX.from_pretrained(folder / "base"))
    prompts = [[5, 6, 7], [9], [700, 800, 900, 1000, 3]]
    replies = Writer(policy, 2, 64).write(policy, prompts, [1, 2, 3], 20)
    batch = replies_batch([(reply.prompt, reply.ids) for reply in replies], 0)
    logps, entropies = token_logps(policy, batch["ids"], batch["targets"])
    for row, reply in enumerate(replies):
        at = batch["targets"][row] >= 0
        assert batch["targets"][row][at].tolist() == reply.ids
        torch.testing.assert_close(logps[row][at], torch.tensor(reply.logprobs), rtol=1e-3, atol=1e-3)
        log_p = policy(torch.tensor([reply.prompt + reply.ids]))[0].log_softmax(1)[len(reply.prompt) - 1 : -1]
        torch.testing.assert_close(logps[row][at], log_p[range(len(reply.ids)), reply.ids], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(entropies[row][at], -(log_p.exp() * log_p).sum(1), rtol=1e-4, atol=1e-4)
    assert not logps[batch["targets"] < 0].any()
