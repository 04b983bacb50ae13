"""Reward model and DPO as verbs: they learn, go on exactly, and refuse bad rows."""

import pytest

from janeox import JaneoxError
from janeox.tune.pairs import read_pairs
from janeox.tune.reward_model import RewardModel
from runs import janeox, metrics
from tuning import pairs, write_jsonl, write_model


@pytest.fixture(scope="module")
def folder(tokenizer, works, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    write_model(folder / "base", tokenizer)
    write_jsonl(folder / "pairs.jsonl", pairs(works, 32))
    write_jsonl(folder / "valid.jsonl", pairs(works, 48)[32:])
    return folder


def tune(verb, folder, out, *more):
    command = [verb, "--model", folder / "base", "--data", folder / "pairs.jsonl", "--valid", folder / "valid.jsonl"]
    command += ["--out", out, "--max-tokens", 64, "--batch-rows", 8, "--micro-batch-rows", 4, "--epochs", 4]
    command += ["--optim.learning-rate", "1e-3", "--train.dtype", "float32", "--train.log-every", 1]
    command += ["--train.sample-every", 0, "--train.save-every", 4, "--train.evaluate-every", 8]
    return janeox(*command, *more)


def killed_after(step, call):
    """Runs `call` in which the process ends right after the save of `step`."""
    from janeox.train import loop

    saved = loop.Saver.save

    def dies(saver, at):
        saved(saver, at)
        saver.wait()
        if at == step:
            raise SystemExit(9)

    loop.Saver.save = dies
    try:
        assert call().returncode == 9
    finally:
        loop.Saver.save = saved


@pytest.mark.parametrize("verb", ["reward", "dpo"])
def test_learns_and_goes_on_exactly(folder, tmp_path, verb):
    done = tune(verb, folder, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "whole")
    measured = [row for row in rows if "valid_loss" in row]
    accuracy = "valid_accuracy" if verb == "reward" else "valid_rewards/accuracies"
    assert measured[-1][accuracy] > 0.8  # on pairs that were not learned
    assert measured[-1]["valid_loss"] < 0.65  # of ln 2 at the beginning
    killed_after(8, lambda: tune(verb, folder, tmp_path / "cut"))
    assert tune(verb, folder, tmp_path / "cut").returncode == 0
    assert metrics(tmp_path / "cut") == rows
    whole, cut = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    if verb == "reward":
        assert "held-out pairs" in done.stdout
        assert RewardModel.from_pretrained(tmp_path / "whole" / "model").score.weight.shape == (1, 32)


def test_pairs_with_a_reply_that_is_too_long_are_left_out(tokenizer, tmp_path, capsys):
    rows = [{"prompt": "a", "chosen": "長" * 99, "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "c"}]
    assert len(read_pairs(tokenizer, [write_jsonl(tmp_path / "pairs.jsonl", rows)], 64)) == 1
    assert "1 pairs left out: a reply has more than 64 tokens" in capsys.readouterr().out
    with pytest.raises(JaneoxError, match="no pairs there whose replies have at most 64 tokens"):
        read_pairs(tokenizer, [write_jsonl(tmp_path / "long.jsonl", rows[:1])], 64)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are equal"),
        ({"prompt": "a", "chosen": "b"}, "'rejected' is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "'rejected' is missing or says nothing"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "says nothing"),
        ({"chosen": "b", "rejected": "c"}, "no list of turns"),
        ({"prompt": [{"role": "bot", "content": "a"}], "chosen": "b", "rejected": "c"}, "unknown speaker 'bot'"),
        (["a"], "expected an object"),
    ],
)
def test_bad_rows(folder, tmp_path, row, says):
    done = tune("reward", folder, tmp_path / "run", "--data", write_jsonl(tmp_path / "pairs.jsonl", [row]))
    assert done.returncode == 1
    assert "pairs.jsonl:1" in done.stderr and says in done.stderr
    assert not (tmp_path / "run" / "state").exists()
