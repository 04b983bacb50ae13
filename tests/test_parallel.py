"""Training by several processes over gloo: the same run as by one, and saves that any number of them can use."""

import shutil

import pytest
import torch

from janeox import JaneoxError
from janeox.config import GPTNeoXConfig
from janeox.model import GPTNeoX
from janeox.train.parallel import World, check_heads, check_rows
from runs import janeox, metrics, together, write_recipe

SPLIT = "train.tensor_parallel=2"
COMMON = ("data.separate_documents=True", "train.save_every=10", "train.keep=2", "train.evaluate_every=20")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A recipe, and its runs of 20 steps by one process, with each optimizer."""
    recipe = write_recipe(tmp_path_factory.mktemp("alone"))
    for verb in ("clean", "train-tokenizer", "tokenize"):
        done = janeox(verb, recipe)
        assert done.returncode == 0, done.stderr
    for optimizer in ("adamw", "muon"):
        done = janeox("pretrain", recipe, *COMMON, f"optim.name={optimizer}", "--out", fresh(recipe, optimizer))
        assert done.returncode == 0, done.stderr
    return recipe


@pytest.fixture(scope="module")
def runs(alone):
    """The same by 4 processes and by 2, divided along data (FSDP), along the model (TP), and both; folder by name.

    And the second half of such runs, from the state of step 10, by another number of processes, divided otherwise.
    """

    def run(optimizer, name, *settings):
        return ["pretrain", str(alone), *COMMON, f"optim.name={optimizer}", *settings, "--out", fresh(alone, name)]

    def state(of, into):
        return ["copy", str(alone.parent / of / "kept/step-00000010/state"), str(alone.parent / into / "state")]

    four = [run("adamw", "fsdp-4"), run("muon", "grid", SPLIT), run("muon", "grid-to-fsdp-4")]
    four.insert(2, state("grid", "grid-to-fsdp-4"))
    assert together(4, four).count("parameters on") == 3  # one process speaks
    two = [run("muon", "fsdp-2"), run("adamw", "tp-2", SPLIT), run("muon", "grid-to-tp-2", SPLIT)]
    two.insert(2, state("grid", "grid-to-tp-2"))
    two += [state("fsdp-4", "fsdp-4-to-2"), run("adamw", "fsdp-4-to-2")]
    bfloat16 = ("train.dtype=bfloat16", "train.tokens=1280", "train.sample_every=2")
    two += [run("adamw", "bfloat16", SPLIT, *bfloat16), run("adamw", "bfloat16-fsdp", *bfloat16)]
    together(2, two)
    arguments = run("muon", "grid-to-1")
    shutil.copytree(*state("grid", "grid-to-1")[1:])
    assert janeox(*arguments).returncode == 0
    return alone.parent


def fresh(recipe, name):
    """A run folder beside the recipe, with its shards and tokenizer."""
    folder = recipe.parent / name
    if not folder.exists():
        shutil.copytree(recipe.parent / "run", folder, ignore=shutil.ignore_patterns("corpus"))
    return str(folder)


@pytest.mark.parametrize(
    "name, reference",
    [
        ("fsdp-4", "adamw"),
        ("fsdp-2", "muon"),
        ("tp-2", "adamw"),
        ("grid", "muon"),
        ("grid-to-fsdp-4", "muon"),
        ("grid-to-tp-2", "muon"),
        ("grid-to-1", "muon"),
        ("fsdp-4-to-2", "adamw"),
    ],
)
def test_the_same_run_as_alone(runs, name, reference):
    expected = {row["step"]: row for row in metrics(runs / reference) if "loss" in row}
    losses = {row["step"]: row for row in metrics(runs / name) if "loss" in row}
    assert list(losses) == list(range(11 if "-to-" in name else 1, 21))
    for step, row in losses.items():
        assert row["loss"] == pytest.approx(expected[step]["loss"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(expected[step]["grad_norm"], rel=1e-4)
    valid = [metrics(runs / folder)[-1]["valid_loss"] for folder in (name, reference)]
    assert valid[0] == pytest.approx(valid[1], rel=1e-5)
    weights = [GPTNeoX.from_pretrained(runs / folder / "model").state_dict() for folder in (name, reference)]
    for key, mine in weights[0].items():
        assert torch.allclose(mine, weights[1][key], atol=2e-4), key


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16-fsdp"])
def test_weights_that_travel_in_bfloat16_give_nearly_the_same(runs, name):
    rows = [row for row in metrics(runs / name) if "loss" in row]
    expected = [row for row in metrics(runs / "adamw") if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["loss"] != expected[0]["loss"] and rows[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-3)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_numbers_that_do_not_divide_are_errors(monkeypatch, alone):
    check_rows(8, World(torch.device("cpu"), 0, 4))
    check_rows(2, World(torch.device("cpu"), 0, 4, tensor_parallel=2))
    with pytest.raises(JaneoxError, match="which 3 processes cannot share evenly"):
        check_rows(8, World(torch.device("cpu"), 0, 3))
    check_heads(GPTNeoXConfig(), 11)
    with pytest.raises(JaneoxError, match=r"does not divide model\.num_attention_heads = 22; .* cut 1, 2, 11, 22 ways"):
        check_heads(GPTNeoXConfig(), 4)
    done = janeox("pretrain", alone, SPLIT, "--out", alone.parent / "nowhere", "--shards", alone.parent / "run/shards",
                  "--tokenizer-folder", alone.parent / "run/tokenizer")  # fmt: skip
    assert done.returncode == 1 and "does not divide the number of processes, 1" in done.stderr
