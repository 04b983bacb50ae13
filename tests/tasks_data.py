"""The tasks' documents of tests/data/tasks as the files that users have."""

import json
from pathlib import Path
from typing import Any

SAMPLES = json.loads((Path(__file__).parent / "data" / "tasks" / "prompts.json").read_text(encoding="utf-8"))
FILES = {
    "jcommonsenseqa": ("jcommonsenseqa-valid-v1.3.json", "jcommonsenseqa-train-v1.3.json"),
    "jnli": ("jnli-valid-v1.3.json", "jnli-test-v1.3.json"),
    "jsquad": ("jsquad-valid-v1.3.json", "jsquad-test-v1.3.json"),
    "marc_ja": ("marc_ja-valid-v1.0.json", "marc_ja-train-v1.0.json"),
    "jaqket_v2": ("jaqket_v2-validation.jsonl", "jaqket_v2-train.jsonl"),
    "xlsum_ja": ("japanese_test.jsonl", "japanese_train.jsonl"),
    "mgsm": ("mgsm-test.jsonl", "mgsm-train.jsonl"),
}


def write_task_data(folder: Path) -> Path:
    for task, names in FILES.items():
        for name, records in zip(names, SAMPLES["documents"][task].values(), strict=True):
            lines = [json.dumps(record, ensure_ascii=False) for record in records]
            text = json.dumps(squad(records), ensure_ascii=False) if task == "jsquad" else "\n".join(lines) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
    pair = {"sentence1": "猫は鼠を追った。", "sentence2": "鼠は猫を追った。", "answer": 1}
    (folder / "xwinograd_ja-test.jsonl").write_text(json.dumps(pair, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def squad(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The form of JSQuAD's files."""
    articles = []
    for record in records:
        answers = [{"text": text, "answer_start": 0} for text in record["answers"]["text"]]
        question = {"id": record["id"], "question": record["question"], "answers": answers, "is_impossible": False}
        paragraph = {"context": record["context"], "qas": [question]}
        articles.append({"title": record["title"], "paragraphs": [paragraph]})
    return {"version": "1.3", "data": articles}
