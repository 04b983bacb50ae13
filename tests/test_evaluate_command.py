"""The verb `evaluate` on what users give it: empty documents, long ones, models without a tokenizer."""

import json
import re
import shutil

import pytest

from janeox.config import GPTNeoXConfig
from runs import janeox
from test_model import theirs


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    theirs(GPTNeoXConfig(tokenizer.vocab_size, 32, 1, 2, 64, max_position_embeddings=64)).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def write(file, texts):
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return file


def scores(folder, tmp_path, *arguments):
    done = janeox("evaluate", *arguments, "--model", folder, "--json-file", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")), done


def test_empty_documents_are_left_out_and_counted(folder, works, tmp_path):
    texts = [works[1][:30], works[2][:40]]
    full = write(tmp_path / "a.jsonl", texts)
    expected, _ = scores(folder, tmp_path, full)
    found, done = scores(folder, tmp_path, write(full, ["", texts[0], "", texts[1]]))
    assert found == expected and "2 empty documents were left out" in done.stderr
    done = janeox("evaluate", write(full, ["", ""]), "--model", folder)
    assert done.returncode == 1 and "a.jsonl: no document to evaluate on" in done.stderr


@pytest.mark.parametrize("bits", [(), ("--bits", 8)])
def test_a_text_longer_than_the_context_is_read_whole(folder, tokenizer, works, tmp_path, bits):
    text = "".join(works[:4])[:900]
    tokens = len(tokenizer.encode(text)) + 1
    assert tokens > 5 * 64
    found, done = scores(folder, tmp_path, write(tmp_path / "a.jsonl", [text]), *bits)
    assert found["scores"]["a.jsonl"]["tokens"] == tokens
    assert found["scores"]["a.jsonl"]["bytes"] == len(text.encode())
    assert "documents apart, context 64, stride 32" in re.sub(r"\s+", " ", done.stdout)


def test_by_file_and_in_all_with_published_definitions(folder, works, tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", texts) for name, texts in (("a", works[:2]), ("b", works[2:5]))]
    window = ("--documents", "packed", "--context", 32, "--stride", 32)
    found, done = scores(folder, tmp_path, *files, *window, "--published", True)
    rows = found["scores"]
    assert (found["documents"], found["context"], found["stride"]) == ("packed", 32, 32)
    assert rows["all"]["tokens"] == rows["a.jsonl"]["tokens"] + rows["b.jsonl"]["tokens"]
    low, high = rows["all"]["bits_per_byte_interval"]
    assert low < rows["all"]["bits_per_byte"] < high
    for name in ("a.jsonl", "b.jsonl"):
        figures = rows[name]["published_definitions"]
        assert all(f"{value:.2f}" in done.stdout for value in figures.values())


def test_a_model_without_a_tokenizer(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for file in bare.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    text = write(tmp_path / "a.jsonl", ["猫"])
    for engine, message in (("janeox", "spiece.model"), ("transformers", "finds no tokenizer there")):
        done = janeox("evaluate", text, "--model", bare, "--engine", engine)
        assert done.returncode == 1 and message in done.stderr and str(bare) in done.stderr
        assert "Traceback" not in done.stderr


def test_bits_are_not_of_transformers(folder, tmp_path):
    done = janeox(
        "evaluate", write(tmp_path / "a.jsonl", ["猫"]), "--model", folder, "--engine", "transformers", "--bits", 8
    )
    assert done.returncode == 1 and "bits are of the engine janeox" in done.stderr
