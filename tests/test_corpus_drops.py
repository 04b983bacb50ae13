"""The sample of dropped documents: bounded, the same in any order, and written where the report points."""

import json
import random

from janeox.config import CorpusConfig
from janeox.corpus import drops
from janeox.corpus.drops import Drops
from janeox.corpus.pipeline import clean_corpus

KEPT = "ひらがなの多い、ふつうの文章が、五十文字をこえるまで、ゆっくりとつづいてゆく。そして、ここでおわることにする。"


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_sample_is_bounded_and_does_not_hang_on_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(drops, "CHARS", 3)
    texts = [f"{number:04d}" for number in range(1000)]
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(texts)
        sample = Drops()
        for text in texts:
            sample.add("rule", "s", text, text)
        (tmp_path / str(seed)).mkdir()
        sample.write(tmp_path / str(seed))
        found.append(rows(tmp_path / str(seed) / "dropped/rule.jsonl"))
    assert found[0] == found[1] == found[2]
    places = [row["where"] for row in found[0]]
    assert len(set(places)) == 50 and places == sorted(places)
    assert 300 < sum(map(int, places)) / 50 < 700  # the middle of 0…999 is expected, standard deviation 41
    assert all(row == {"source": "s", "where": row["where"], "text": row["where"][:3]} for row in found[0])


def test_cleaning_keeps_a_sample_per_rule(tmp_path):
    (tmp_path / "a.txt").write_text(f"短い。\n\n{KEPT}\n\n{KEPT}\n\nこれも。\n", encoding="utf-8")
    clean_corpus(CorpusConfig({"s": str(tmp_path / "a.txt")}, valid_fraction=0), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/dropped").iterdir()) == ["duplicate.jsonl", "too_short.jsonl"]
    assert rows(tmp_path / "out/dropped/duplicate.jsonl") == [{"source": "s", "where": "a.txt:5", "text": KEPT}]
    assert [row["text"] for row in rows(tmp_path / "out/dropped/too_short.jsonl")] == ["短い。", "これも。"]
