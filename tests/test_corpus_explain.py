"""`janeox clean --explain`: the document that is meant, every rule with its value, and the decision."""

import json
from pathlib import Path

import pytest

from janeox.corpus.explain import find
from janeox.corpus.presets import PRESETS
from janeox.errors import JaneoxError
from runs import janeox

SHORT = "これは短い。"
LONG = "ひらがなの多い、ふつうの文章が、五十文字をこえるまで、ゆっくりとつづいてゆく。そして、ここでおわることにする。"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"text": LONG}), "broken", json.dumps({"text": SHORT})]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_file_and_a_number_name_a_document(file, tmp_path):
    assert find(str(file)).text == find(f"{file}:1").text == LONG
    assert find(f"{file}:2").text == SHORT
    odd = tmp_path / "b:1"
    odd.write_text(SHORT, encoding="utf-8")
    assert find(str(odd)).text == SHORT  # a file of that name goes first
    with pytest.raises(JaneoxError, match=r"a\.jsonl: holds fewer than 3 documents"):
        find(f"{file}:3")
    with pytest.raises(JaneoxError, match="numbered from 1"):
        find(f"{file}:0")
    with pytest.raises(JaneoxError, match="no such file"):
        find(str(tmp_path / "none"))


def test_explain_shows_every_rule_and_the_decision(file, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    done = janeox("clean", "--explain", file)
    assert done.returncode == 0 and LONG in done.stdout.replace("\n", "")
    assert "light: kept" in done.stdout and "drop" not in done.stdout
    done = janeox("clean", "--explain", f"{file}:2", "corpus.preset=swallow")
    assert "a.jsonl:3, 6 characters" in done.stdout
    assert all(rule.what in done.stdout for rule in PRESETS["swallow"])
    assert "≥ 20, ≤ 90" in done.stdout and "swallow: dropped: too_short" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]  # nothing was cleaned
