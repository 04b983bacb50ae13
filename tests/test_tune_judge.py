"""`janeox judge`: the table of two models, and what it refuses."""

import json

import pytest

from janeox.tune.judge import verdict
from runs import janeox
from tuning import pairs, write_jsonl, write_model


@pytest.fixture(scope="module")
def folder(tokenizer, works, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    write_model(folder / "new", tokenizer, seed=1)
    write_model(folder / "old", tokenizer)
    write_jsonl(folder / "prompts.jsonl", pairs(works, 24))
    return folder


def judge(folder, out, *models, reward="test_tune_ppo:share_of_kana"):
    command = ["judge", *(folder / name for name in models), "--reward", reward, "--data", folder / "prompts.jsonl"]
    return janeox(*command, "--max-tokens", 8, "--limit", 20, "--out", out)


def test_counts_what_the_reward_prefers(folder, tmp_path):
    done = judge(folder, tmp_path / "judged.jsonl", "new", "old")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 20
    leads = [row["scores"][0] - row["scores"][1] for row in rows]
    shares = [
        sum(lead > 0.1 for lead in leads),
        sum(abs(lead) <= 0.1 for lead in leads),
        sum(lead < -0.1 for lead in leads),
    ]
    assert sum(shares) == 20
    for share in shares:
        assert f" {share / 20:.0%} " in done.stdout
    hiragana = [[sum("ぁ" <= c <= "ん" for c in text) / max(1, len(text)) for text in row["replies"]] for row in rows]
    assert [row["scores"] for row in rows] == hiragana


def test_a_model_ties_with_itself(folder, tmp_path):
    done = judge(folder, tmp_path / "judged.jsonl", "old", "old")
    assert " 100% " in done.stdout and "0.000 ± 0.000" in done.stdout


def test_verdict():
    assert verdict([1.0, 0.5, 0.0, 0.2], [0.0, 0.5, 1.0, 0.15], 0.1)[:3] == (1, 2, 1)


def test_bad_calls(folder, tmp_path):
    assert "two models" in judge(folder, tmp_path / "x", "old").stderr
    assert (
        "no such folder, and no such function"
        in judge(folder, tmp_path / "x", "new", "old", reward="nowhere:to").stderr
    )
    assert not (tmp_path / "x").exists()
