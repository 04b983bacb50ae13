"""The command line: help that teaches and is instant, settings from recipes and flags, errors that name the mend."""

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janeox import JaneoxError, cli, config, recipe
from janeox.progress import progress
from janeox.settings.run import Run
from runs import ROOT, janeox

WITHOUT_TORCH = """
import sys
from janeox.cli import main
try:
    main({arguments})
except SystemExit:
    pass
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""


@pytest.mark.parametrize("arguments", [["--help"], *[[verb, "--help"] for verb in cli.VERBS]])
def test_help_imports_no_torch(arguments):
    script = WITHOUT_TORCH.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("Usage" if len(arguments) == 2 else "usage").lower() in done.stdout.lower()


def test_overview_names_every_verb_and_help_every_setting():
    overview = janeox("--help").stdout
    for name, verb in cli.VERBS.items():
        assert f"  {name} " in overview and verb.summary in overview
    shown = janeox("pretrain", "--help").stdout
    for section in ("model", "data", "optim", "train"):
        cls = {"model": config.GPTNeoXConfig, "data": config.DataConfig, "optim": config.OptimConfig,
               "train": config.TrainConfig}[section]  # fmt: skip
        for name in cls.__dataclass_fields__:
            assert f"--{section}.{name.replace('_', '-')}" in shown


def test_help_shows_the_effective_values_of_a_recipe():
    shown = janeox("pretrain", ROOT / "recipes" / "tiny-cpu.toml", "model.num_hidden_layers=7", "--help").stdout
    assert "(default: 7)" in shown and "(default: runs/tiny-cpu)" in shown and "(default: muon)" in shown


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda file: file.stem)
def test_recipes_are_valid_for_every_verb_that_reads_one(file):
    for name in ("run", "clean", "train-tokenizer", "tokenize", "pretrain"):
        read = recipe.read_recipe(cli.VERBS[name].settings, file)
        assert read.out.name == file.stem


@pytest.mark.parametrize("file", sorted((ROOT / "recipes" / "series").glob("*.toml")), ids=lambda file: file.stem)
def test_recipes_of_the_series_are_valid(file):
    assert recipe.read_recipe(cli.VERBS[file.stem.removesuffix("-v2")].settings, file).out.name == file.stem


def parsed(*arguments):
    return cli.parse(cli.VERBS["run"], "janeox run", list(map(str, arguments)))


def test_later_settings_win(tmp_path):
    file = tmp_path / "r.toml"
    file.write_text("[train]\ntokens = 5\nseed = 3\n[model]\nhidden_size = 128\nnum_attention_heads = 2\n")
    given = parsed(file, "train.tokens=7", "--model.hidden-size", "256", "out=elsewhere")
    assert (given.train.tokens, given.train.seed, given.model.hidden_size) == (7, 3, 256)
    assert str(given.out) == "elsewhere"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[model]\nhiden_size = 5", "unknown key 'model.hiden_size'; did you mean 'model.hidden_size'?"),
        ("[modle]\nx = 5", "unknown key 'modle'; did you mean 'model'?"),
        ("[train]\ntokens = 'many'", "train.tokens = 'many': expected int"),
        ("[train]\ntokens = 1.5", "train.tokens = 1.5: expected int"),
        ("[optim]\nname = 'adam'", "expected one of 'adamw', 'muon'"),
        ("[model]\nhidden_size = 100\nnum_attention_heads = 3", "does not divide"),
        ("[tokenizer]\nvocab_size = 64000", "larger than model.vocab_size"),
        ("[data]\nsequence_length = 4096", "longer than model.max_position_embeddings"),
        ("[data]\nbatch_tokens = 1000", "no multiple of data.sequence_length"),
        ("[optim]\nclip_norm = -1", "optim.clip_norm = -1.0: must be 0 or more"),  # it would climb
        ("[optim]\nbeta2 = 1", "optim.beta2 = 1.0: must be at least 0 and below 1"),
        ("[model]\nrotary_emb_base = 0", "model.rotary_emb_base = 0.0: must be above 0"),
        ("[train]\nrecompute_layers = -1", "train.recompute_layers = -1: must be at least 0"),
        ("[train]\nseed = -1", "train.seed = -1: must lie between"),
        ("[model", "not a TOML file"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(tmp_path, text, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    done = janeox("run", file)
    assert done.returncode == 1 and message in done.stderr and str(file) in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_calls():
    assert janeox("generat").returncode == 2 and "did you mean 'generate'?" in janeox("generat").stderr
    done = janeox("run", "train.tokenz=5")
    assert done.returncode == 2 and "train.tokens" in done.stderr + done.stdout
    assert "cannot be read" in janeox("run", "nowhere.toml").stderr


def test_bare_arguments():
    generate = cli.parse(cli.VERBS["generate"], "janeox", ["吾輩は=猫", "--temperature", "0.5", "--stop", "。", "\n"])
    assert (generate.prompt, generate.temperature, generate.stop) == ("吾輩は=猫", 0.5, ("。", "\n"))
    assert cli.parse(cli.VERBS["generate"], "janeox", []).prompt == "西田幾多郎は、"
    assert cli.parse(cli.VERBS["generate"], "janeox", ["-"]).prompt == "-"
    for arguments in ("a.txt b.xz --model m", "--model m a.txt b.xz", "--model=m a.txt b.xz"):
        evaluate = cli.parse(cli.VERBS["evaluate"], "janeox", arguments.split())
        assert evaluate.input == ("a.txt", "b.xz") and evaluate.model == "m"
    generate = cli.parse(cli.VERBS["generate"], "janeox", ["--stop", "。", "！", "--length-penalty", "-1", "吾輩は"])
    assert (generate.prompt, generate.length_penalty, generate.stop) == ("吾輩は", -1.0, ("。", "！"))


def test_a_progress_line_fits_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    with progress("train", 1000, "steps") as bar:
        bar._terminal = True
        time.sleep(0.3)
        bar.advance(1, note="loss 7.566, norm 1.58, rate 6.4e-04")
    drawn = capsys.readouterr().err.split("\r\033[K")[1]
    assert drawn.startswith("train: 1/1,000 steps (0%)") and len(drawn) == 39


def test_who_reads_the_output_may_leave_and_may_not_know_a_character():
    command = [sys.executable, "-m", "janeox.cli", "--help"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (141, "")
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 0 and "section.key=value ?]" in done.stdout


tables = st.fixed_dictionaries(
    {
        "sequence_length": st.integers(1, 100),
        "weights": st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1e6), max_size=3),
    }
)


@given(tables)
def test_settings_go_through_toml_and_back(table):
    data = config.DataConfig(batch_tokens=table["sequence_length"] * 3, **table)
    assert recipe.from_table(config.DataConfig, recipe.to_table(data)) == data


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists) | st.binary())
def test_any_wrong_value_is_a_clear_error(value):
    try:
        recipe.from_table(Run, {"model": {"hidden_size": value}})
    except JaneoxError as error:
        assert "model.hidden_size" in str(error)
    else:
        assert type(value) is int and value > 0
