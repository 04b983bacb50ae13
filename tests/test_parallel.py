"""Training by several processes over gloo: the same run as by one, and saves that any number of them can use."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from janeox import JaneoxError
from janeox.train.parallel import World, check_rows
from runs import ROOT, janeox, metrics, write_recipe
from test_train import wait_for_row


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A recipe, and its run of 20 steps by one process."""
    recipe = write_recipe(tmp_path_factory.mktemp("alone"))
    for verb in ("clean", "train-tokenizer", "tokenize", "pretrain"):
        done = janeox(verb, recipe)
        assert done.returncode == 0, done.stderr
    return recipe


def together(processes, *arguments):
    """Starts `janeox pretrain ARGUMENTS` by several processes, as torchrun does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "janeox.cli", "pretrain", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def fresh(recipe, folder):
    keep = shutil.ignore_patterns("state", "model", "metrics.jsonl", "loss.png")
    shutil.copytree(recipe.parent / "run", folder, ignore=keep)
    return folder


def same_curve(one, other):
    """Equal rows, the figures within 1e-5."""
    rows = metrics(one), metrics(other)
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for mine, reference in zip(*rows, strict=True):
        for name in {"loss", "grad_norm", "valid_loss"} & reference.keys():
            assert mine[name] == pytest.approx(reference[name], rel=1e-5)


@pytest.mark.parametrize("processes, optimizer", [(2, "adamw"), (4, "muon")])
def test_the_same_loss_curve_as_alone(alone, tmp_path, processes, optimizer):
    name = f"optim.name={optimizer}"
    expected = alone.parent / "run"
    if optimizer != "muon":
        expected = fresh(alone, tmp_path / "expected")
        assert janeox("pretrain", alone, "--out", expected, name).returncode == 0
    run = fresh(alone, tmp_path / "run")
    process = together(processes, alone, "--out", run, name)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    same_curve(run, expected)
    assert output.count("parameters on") == 1  # one process speaks


def test_a_state_of_two_processes_goes_on_with_four_and_one(alone, tmp_path):
    run = fresh(alone, tmp_path / "run")
    process = together(2, alone, "--out", run)
    wait_for_row(run, 3)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on; both finish the step and save
    process.communicate(timeout=300)
    stopped = metrics(run)[-1]["step"]
    assert 3 <= stopped < 20 and (run / "state" / ".metadata").exists()
    copy = shutil.copytree(run, tmp_path / "copy")
    process = together(4, alone, "--out", run)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert janeox("pretrain", alone, "--out", copy).returncode == 0
    for folder in (run, copy):
        same_curve(folder, alone.parent / "run")


def test_a_batch_that_does_not_divide_is_an_error():
    check_rows(8, World(torch.device("cpu"), 0, 4))
    with pytest.raises(JaneoxError, match="which 3 processes cannot share evenly"):
        check_rows(8, World(torch.device("cpu"), 0, 3))
