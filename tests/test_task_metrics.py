"""How answers are scored and articles cut, against what the published evaluation code itself says of the same texts
(tests/data/README.md)."""

import json
import sys
from pathlib import Path

import pytest
from lm_eval.api.samplers import FirstNSampler

from janeox import JaneoxError
from janeox.evaluate.tasks.answers import exact_match_and_f1, libraries, words
from janeox.evaluate.tasks.summaries import rouge2
from janeox.evaluate.tasks_command import evaluate_tasks, load_tasks, require_harness

KNOWN = json.loads((Path(__file__).parent / "data" / "tasks" / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("known", KNOWN["answers"], ids=lambda known: known["said"] or "nothing")
def test_answers_score_as_published(known):
    scores = exact_match_and_f1({"answers": {"text": known["right"]}}, [known["said"]])
    assert scores == pytest.approx({name: known[name] for name in ("exact_match", "f1")})


@pytest.mark.parametrize("known", KNOWN["summaries"], ids=lambda known: known["said"] or "nothing")
def test_summaries_score_as_published(known):
    for name, tokenize in (("rouge2_mecab", words), ("rouge2_characters", list)):
        assert rouge2(known["right"], known["said"], tokenize) == pytest.approx(known[name])


class Characters:
    """A model whose tokens are characters, and which answers every article with the same summary."""

    max_length = 2000
    tokenizer_name, chat_template, rank, world_size = "characters", None, 0, 1
    summary = "要約その1"

    def tok_encode(self, text):
        return [ord(character) for character in text]

    def tok_decode(self, ids):
        return "".join(map(chr, ids))

    def generate_until(self, requests):
        return [self.summary for _ in requests]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    require_harness()
    folder = tmp_path_factory.mktemp("data")
    articles = KNOWN["articles"]
    for name, records in (("test", articles["asked"]), ("train", [articles["few_shot"]])):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / f"japanese_{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("case", KNOWN["articles"]["prompts"])
def test_long_articles_are_cut_as_published(case, data):
    name, room = case.split()
    (task,) = load_tasks((name,), data).values()
    task.sampler = FirstNSampler(list(task.fewshot_docs()))
    task.encode, task.decode, task.context = Characters().tok_encode, Characters().tok_decode, int(room)
    for doc, known in zip(task.eval_docs, KNOWN["articles"]["prompts"][case], strict=True):
        assert task.fewshot_context(doc, num_fewshot=1) == known["prompt"]
        assert task.limit(doc) == known["tokens"]


def test_the_task_gives_both_scores(data):
    tasks = load_tasks(("xlsum_ja-1.0-0.0",), data)
    metrics = evaluate_tasks(Characters(), tasks)["xlsum_ja-1.0-0.0"]["metrics"]
    right = [record["summary"] for record in KNOWN["articles"]["asked"]]
    for name, tokenize in (("rouge2", list), ("rouge2_mecab", words)):
        scores = [rouge2(one, Characters.summary, tokenize) for one in right]
        assert metrics[name]["value"] == pytest.approx(sum(scores) / len(scores))
        assert 0 < metrics[name]["value"] < 100


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fugashi", None)
    with pytest.raises(JaneoxError, match=r"fugashi.*pip install 'janeox\[eval\]'"):
        libraries.__wrapped__()
