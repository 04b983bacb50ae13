"""Two processes make the updates of one, in every stage of tuning."""

import pytest
import torch

from janeox.weights import read_weights
from runs import janeox, metrics, together
from tuning import conversations, pairs, write_jsonl, write_model

COMMON = ["--optim.learning-rate", "1e-3", "--train.dtype", "float32", "--train.log-every", "1"]
COMMON += ["--train.sample-every", "0", "--max-tokens", "64", "--batch-rows", "8", "--micro-batch-rows", "2"]
OWN_REPLIES = ["--reward", "test_tune_ppo:share_of_kana", "--max-tokens", "12", "--iterations", "2"]
OWN_REPLIES += ["--num-mini-batches", "2"]
STAGES = {
    "sft": ["--epochs", "1", "--max-tokens", "128", "--batch-rows", "4"],
    "reward": ["--epochs", "1"],
    "dpo": ["--epochs", "1"],
    "ppo": OWN_REPLIES,
    "ppo with adapters": [*OWN_REPLIES, "--lora-rank", "4"],
    "grpo": [*OWN_REPLIES, "--num-generations", "4", "--beta", "0.01"],
}


@pytest.fixture(scope="module")
def runs(tokenizer, works, tmp_path_factory):
    """A folder with each stage's run by one process and by two."""
    folder = tmp_path_factory.mktemp("processes")
    write_model(folder / "base", tokenizer)
    write_jsonl(folder / "pairs.jsonl", pairs(works, 32))
    write_jsonl(folder / "talks.jsonl", conversations(works))

    def call(stage, number):
        data = folder / ("talks.jsonl" if stage == "sft" else "pairs.jsonl")
        where = ["--model", str(folder / "base"), "--data", str(data), "--out", str(folder / f"{stage}-{number}")]
        return [stage.split()[0], *where, *COMMON, *STAGES[stage]]

    for stage in STAGES:
        done = janeox(*call(stage, 1))
        assert done.returncode == 0, done.stderr
    together(2, [call(stage, 2) for stage in STAGES])
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_give_the_updates_of_one(runs, stage):
    one, two = metrics(runs / f"{stage}-1"), metrics(runs / f"{stage}-2")
    assert len(one) >= 3
    for mine, reference in zip(two, one, strict=True):
        assert mine.keys() == reference.keys()
        for name, value in reference.items():
            if isinstance(value, float):
                assert mine[name] == pytest.approx(value, rel=1e-3, abs=2e-5), name
    first, second = (read_weights(runs / f"{stage}-{number}" / "model") for number in (1, 2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=1e-4)
