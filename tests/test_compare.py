"""`janeox compare`: two models in one table and one page."""

import json
from html.parser import HTMLParser

import pytest

import janeox as package
from janeox.config import GPTNeoXConfig
from janeox.evaluate.reference import METRICS, SCORES, TASKS
from janeox.evaluate.tasks_command import task_names
from runs import janeox
from tasks_data import write_task_data
from test_model import theirs


class Page(HTMLParser):
    """Cells of the table, all text, and everything that a page could load."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.text, self.loads, self.in_table = [], "", [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.in_table |= tag == "table"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.loads += [value for name, value in attributes if name in ("src", "href")]
        assert tag != "script"

    def handle_endtag(self, tag):
        self.in_table &= tag != "table"

    def handle_data(self, data):
        self.text += data
        if self.in_table and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    made = []
    for layers in (1, 2):
        config = GPTNeoXConfig(tokenizer.vocab_size, 32, layers, 2, 64, max_position_embeddings=320)
        folder = tmp_path_factory.mktemp("models") / f"<b>{layers}"
        theirs(config).save_pretrained(folder)
        tokenizer.save(folder)
        made.append(folder)
    return made


def test_two_models_side_by_side(folders, works, tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(works[:3]), encoding="utf-8")
    out, tasks, data = tmp_path / "page.html", ("jnli-1.1-0.4", "jsquad-1.1-0.2"), write_task_data(tmp_path)
    done = janeox(
        "compare", *folders, "--input", tmp_path / "a.txt", "--chars", 400, "--tasks", *tasks, "--data", data,
        "--out", out, "--prompts", "猫は<i>",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.with_suffix(".json").read_text())
    page = Page(out.read_text(encoding="utf-8"))
    header, *rows = page.rows
    assert header[-2:] == ["jnli-1.1-0.4 acc", "jsquad-1.1-0.2 exact_match"]
    assert [row[0] for row in rows[:2]] == list(map(str, folders)) and len(rows) == 2 + len(SCORES)
    assert not page.loads and "Stability-AI/lm-evaluation-harness" in page.text
    for folder, row in zip(folders, rows, strict=False):
        found = figures[str(folder)]
        lm = package.load(folder)
        texts = [works[0][:400]]
        assert found["perplexity"] == pytest.approx(lm.perplexity(texts), rel=1e-6)
        assert row[2] == f"{found['perplexity']:.2f}" and row[1] == f"{found['parameters']:,}"
        assert min(found["tokens_written_per_second"], found["tokens_read_per_second"]) > 0
        assert found["peak_memory_bytes"] > 1e8
        assert found["samples"]["猫は<i>"] in page.text and "<i>" in page.text
    assert rows[-1][0].startswith("rinna/japanese-gpt-neox-3.6b-instruction-ppo (published, prompts 0.4)")
    assert rows[-1][-2:] == ["54.19", "51.62"]


def test_nothing_to_compare(folders, tmp_path):
    assert "name the models to compare" in janeox("compare").stderr
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n')
    assert "no document to compare" in janeox("compare", folders[0], "--input", empty).stderr


def test_reference_rows_are_of_known_tasks_and_metrics():
    families = {name.split("-")[0] for name in task_names()}
    assert set(TASKS) == families and set(METRICS) <= families
    assert all(len(scores) == len(TASKS) for _, scores in SCORES.values())
    # The average that the leaderboard gives for these rows.
    averages = {name.rpartition("-")[2]: sum(scores) / 8 for name, (_, scores) in SCORES.items()}
    assert averages == pytest.approx({"3.6b": 41.79, "sft": 43.82, "v2": 45.23, "ppo": 46.32}, abs=0.006)
