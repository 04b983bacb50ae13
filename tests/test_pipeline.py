"""`janeox run` from raw text to a model, and what other tools make of its folder."""

import json
import shlex
import shutil
import warnings

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer

import janeox as package
from card import CARD, NAME
from janeox import cli
from janeox.train.metrics import read_metrics
from runs import ROOT, janeox, metrics, start, write_recipe
from transformers4 import run_transformers4

TEXT = "西田幾多郎は、"

# The model card's own snippet, but for the model's name, which stands in NAME; then its result as JSON.
SNIPPET = CARD.replace(f'"{NAME}"', "NAME")
RESULT = """
import json
print(json.dumps([token_ids.tolist()[0], output_ids.tolist()[0], output, model.dtype == torch.float32,
                  [tokenizer.tokenize(t) for t in EXAMPLES], tokenizer.decode(tokenizer.encode(EXAMPLES[2]))]))
"""
# The tokenization section of the card.
EXAMPLES = ["吾輩は猫である", "  吾輩は  猫である   ", "გამარჯობა  吾輩は  猫である   "]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and its recipe, in a folder whose name has to be quoted."""
    folder = tmp_path_factory.mktemp("pipeline") / "試 し"
    folder.mkdir()
    recipe = write_recipe(folder, context=128)
    done = janeox("run", recipe)
    assert done.returncode == 0, done.stderr
    return folder / "run", recipe, done.stdout


def test_it_makes_every_part_and_says_so(run):
    folder, _, output = run
    for name in ("config.toml", "metrics.jsonl", "loss.png", "evaluation.json", "sample.txt", "steps.json"):
        assert (folder / name).stat().st_size > 0
        assert name in output or name in ("config.toml", "steps.json")
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((folder / "evaluation.json").read_text())
    last = read_metrics(folder / "metrics.jsonl")[-1]
    # The saved folder, opened again, scores what the model in memory did.
    assert table["valid_loss"] == pytest.approx(last["valid_loss"], rel=1e-5)
    assert f"{table['valid_loss']:.3f}" in output and f"{table['unigram_entropy']:.3f}" in output
    assert (folder / "sample.txt").read_text().startswith(TEXT)
    assert not list(folder.glob(".*"))
    generate, evaluate, python = map(shlex.split, output.partition("Type next:\n")[2].splitlines())
    for words in (generate, evaluate):
        assert cli.parse(cli.VERBS[words[1]], "janeox", words[2:]).model == str(folder / "model")
    exec(python[2], {})


def test_a_second_run_does_nothing_again(run):
    folder, recipe, _ = run
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    done = janeox("run", recipe)
    assert done.returncode == 0 and done.stdout.count("done before") == 5
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()} == before


def test_other_data_under_a_trained_model_is_an_error(run):
    folder, recipe, _ = run
    before = metrics(folder), (folder / "corpus" / "report.json").read_bytes()
    done = janeox("run", recipe, "corpus.min_chars=200")
    assert done.returncode == 1 and "holds a model trained on other data" in done.stderr
    assert (metrics(folder), (folder / "corpus" / "report.json").read_bytes()) == before


def test_killed_at_any_step_it_goes_on_to_the_same_model(run, tmp_path):
    whole, _, _ = run
    recipe = write_recipe(tmp_path, context=128)
    for kill_when in ("corpus/report.json", "tokenizer/tokenizer.json", "shards/shards.json", "state/.metadata"):
        process = start("run", recipe)
        while not (tmp_path / "run" / kill_when).exists() and process.poll() is None:
            pass
        process.kill()
        process.wait()
    assert janeox("run", recipe).returncode == 0
    assert metrics(tmp_path / "run") == metrics(whole)
    for name in ("model/model.safetensors", "model/spiece.model", "model/tokenizer.json", "sample.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def check_snippet(folder, result):
    token_ids, output_ids, output, is_float32, pieces, decoded = result
    oracle = SentencePieceProcessor(model_file=str(folder / "model" / "spiece.model"))
    tokenizer = package.Tokenizer.load(folder / "model")
    assert token_ids == oracle.encode(TEXT) == tokenizer.encode(TEXT)
    assert output_ids[: len(token_ids)] == token_ids and len(output_ids) == len(token_ids) + 100
    assert output.startswith(TEXT) and is_float32
    assert pieces == [oracle.encode(text, out_type=str) for text in EXAMPLES]
    assert pieces == [tokenizer.tokenize(text) for text in EXAMPLES]
    # No dummy prefix; each space a piece of its own; nothing unknown, nothing eaten, </s> at the end.
    assert not pieces[0][0].startswith("▁") and oracle.decode(pieces[0]) == EXAMPLES[0]
    assert [piece for piece in pieces[1] if "▁" in piece] == ["▁"] * 7
    assert decoded == EXAMPLES[2] + "</s>" == tokenizer.decode(tokenizer.encode(EXAMPLES[2])) + "</s>"


def test_the_cards_snippet_under_transformers_5(run, capsys):
    folder, _, _ = run
    names = {"NAME": str(folder / "model"), "EXAMPLES": EXAMPLES}
    exec(SNIPPET + RESULT, names)
    check_snippet(folder, json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_the_cards_snippet_under_transformers_4(run):
    folder, _, _ = run
    head = f"NAME, EXAMPLES = {str(folder / 'model')!r}, {EXAMPLES!r}\n"
    check_snippet(folder, run_transformers4(head + SNIPPET + RESULT))


@pytest.mark.parametrize("version", [4, 5])
def test_the_cards_snippet_on_a_repaired_folder(run, tmp_path, capsys, version):
    """A folder as the rinna series has them: no tokenizer.json, a T5 class. Repaired, it runs the card's code."""
    folder = shutil.copytree(run[0], tmp_path / "run")
    model = folder / "model"
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (model / name).unlink()
    roles = {"eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "<s>", "extra_ids": 0}
    rinna = roles | {"tokenizer_class": "T5Tokenizer", "model_max_length": 99}
    (model / "tokenizer_config.json").write_text(json.dumps(rinna))
    assert janeox("doctor", model).returncode == 1
    done = janeox("export-tokenizer", model)
    assert done.returncode == 0 and "T5Tokenizer" in done.stdout
    assert janeox("doctor", model).returncode == 0
    assert json.loads((model / "tokenizer_config.json").read_text())["model_max_length"] == 99
    assert json.loads((model / "tokenizer_config.json.before-janeox").read_text()) == rinna
    if version == 4:
        head = f"NAME, EXAMPLES = {str(model)!r}, {EXAMPLES!r}\n"
        result = run_transformers4(head + SNIPPET + RESULT)
    else:
        exec(SNIPPET + RESULT, {"NAME": str(model), "EXAMPLES": EXAMPLES})
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
    check_snippet(folder, result)


def test_transformers_computes_the_same(run):
    folder, _, _ = run
    lm = package.load(folder / "model")
    reference = AutoModelForCausalLM.from_pretrained(folder / "model")
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder / "model").encode(TEXT, add_special_tokens=False)])
    with torch.no_grad():
        assert (lm.model(ids) - reference(ids).logits).abs().max() < 1e-5
    greedy = reference.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    assert lm.generate(TEXT, max_new_tokens=40, temperature=0) == lm.tokenizer.decode(greedy.tolist())


def test_generate_and_evaluate_find_the_newest_run(run, tmp_path, monkeypatch):
    folder, _, _ = run
    shutil.copytree(folder, tmp_path / "runs" / "試し")
    monkeypatch.chdir(tmp_path)
    done = janeox("generate")
    assert done.returncode == 0 and done.stdout.startswith(TEXT) and len(done.stdout) > 40
    assert "model: runs/試し/model" in done.stderr
    one, other = (janeox("generate", "東京は、", "--seed", "5").stdout for _ in range(2))
    assert one == other and one.startswith("東京は、")
    done = janeox("evaluate")
    assert done.returncode == 0 and "books" in done.stdout and "Perplexity" in done.stdout
    with warnings.catch_warnings(action="error"):  # as of characters that the font lacks
        done = janeox("plot", "runs/試し")
    assert done.returncode == 0 and "loss.png" in done.stdout


def test_evaluate_scores_files(run, tmp_path):
    folder, _, _ = run
    file = tmp_path / "a.txt"
    file.write_text("吾輩は猫である。\n名前はまだ無い。\n\n国境の長いトンネルを抜けると雪国であった。\n")
    done = janeox("evaluate", file, "--model", folder / "model")
    texts = ["吾輩は猫である。\n名前はまだ無い。", "国境の長いトンネルを抜けると雪国であった。"]
    score = package.load(folder / "model").score(texts)
    assert done.returncode == 0
    assert f"{score.perplexity:.2f}" in done.stdout and f"{score.bits_per_byte:.4f}" in done.stdout
    other = ("--engine", "transformers", "--json-file", tmp_path / "scores.json")
    assert janeox("evaluate", file, "--model", folder / "model", *other).returncode == 0
    table = json.loads((tmp_path / "scores.json").read_text())["scores"]["a.txt"]
    assert table["perplexity"] == pytest.approx(score.perplexity, rel=1e-4) and table["documents"] == 2


def test_embedded_corpus_is_there_and_small():
    files = [file for name in ("cc100", "mc4", "wiki") for file in (ROOT / "data" / name).rglob("*") if file.is_file()]
    assert len(files) >= 3 and sum(file.stat().st_size for file in files) <= 1_500_000
