"""Predicted memory against what PyTorch holds; a plan's table, and its errors."""

import random
import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from janeox.config import DataConfig, GPTNeoXConfig, TrainConfig
from janeox.errors import JaneoxError
from janeox.model import GPTNeoX
from janeox.settings.train import Plan
from janeox.train import trial
from janeox.train.cost import flops_per_token, num_parameters
from janeox.train.memory import GIB, USABLE, Layout, check_fits, fitting, memory, needed
from janeox.train.metrics import read_metrics
from runs import ROOT, janeox, start, write_recipe


@pytest.mark.parametrize("shape", [(97, 32, 2, 2, 64), (500, 96, 3, 6, 200), (300, 64, 1, 4, 256)])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_of_the_model(shape, tied):
    config = GPTNeoXConfig(*shape, tie_word_embeddings=tied)
    assert num_parameters(config) == sum(p.numel() for p in GPTNeoX(config).parameters())


def test_the_published_size():
    assert num_parameters(GPTNeoXConfig()) == 3_607_245_312
    assert (
        flops_per_token(GPTNeoXConfig(), 2048)
        == 6 * (3_607_245_312 - 36 * 36_608 - 5_632 - 90_112_000) + 12 * 36 * 2816 * 2048
    )


@pytest.mark.parametrize("bfloat16", [False, True])
def test_activations_are_those_that_autograd_keeps(bfloat16):
    config = GPTNeoXConfig(64, 96, 5, 6, 400)
    model = GPTNeoX(config).initialize(torch.Generator().manual_seed(0))
    weights = {parameter.numel() for parameter in model.parameters()}  # they and their bfloat16 copies
    kept = {}

    def keep(tensor):
        if tensor.numel() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        hidden = model.hidden(torch.randint(0, 64, (4, 200)))
    parts = memory(config, 200, Layout(1, 1, 4, 0), False, bfloat16, "cpu")
    assert hidden.requires_grad and sum(kept.values()) == pytest.approx(parts["activations"], rel=0.03)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_does_not_fit_is_said_with_what_would(bfloat16):
    config, train = GPTNeoXConfig(6144, 512, 8, 8, 2048), TrainConfig(recompute_layers=0)
    data = DataConfig(sequence_length=1024, batch_tokens=64 * 1024, micro_batch_rows=32)

    def bytes_of(rows, recompute):
        layout = Layout(1, 1, rows, recompute)
        return sum(memory(config, 1024, layout, rows < 64, bfloat16, "cpu").values())

    available = bytes_of(4, 0) / USABLE + 1
    with pytest.raises(
        JaneoxError, match=f"about {bytes_of(32, 8) / GIB:.1f} GiB, 8 layers recomputed, .*rows=4 .* fit"
    ):
        check_fits(config, data, TrainConfig(), 1, available, "cpu", bfloat16)
    with pytest.raises(JaneoxError) as error:
        check_fits(config, data, train, 1, available, "cpu", bfloat16)
    too_few = (bytes_of(32, 0) - available) / GIB
    assert f"{too_few:.1f} too few; data.micro_batch_rows=4 train.recompute_layers=0 would fit" in str(error.value)
    data.micro_batch_rows = 4  # the advice, followed
    check_fits(config, data, train, 1, available, "cpu", bfloat16)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("processes, ways", [(1, 1), (8, 1), (8, 2)])
def test_as_few_layers_are_recomputed_as_make_the_rows_fit(device, processes, ways):
    config, train = GPTNeoXConfig(6144, 512, 8, 8, 2048), TrainConfig(tensor_parallel=ways)
    data = DataConfig(sequence_length=1024, batch_tokens=64 * 1024, micro_batch_rows=4)

    def size(number):
        return needed(config, data, Layout(processes, ways, 4, number), True, device)

    def number(available, train=train):
        return check_fits(config, data, train, processes, available, device, True).recompute

    assert size(1) > size(0) > size(2) > size(8)  # the layer at work is held besides what is kept of the others
    for wanted in (0, 2, 3, 7, 8):
        assert number(size(wanted) / USABLE + 1) == wanted
    assert number(size(8) + 1) == 8  # between what is usable and what there is: tried
    with pytest.raises(JaneoxError, match="8 layers recomputed"):
        number(size(8) - 1)
    for asked, kept in ((0, 0), (3, 3), (99, 8)):
        assert number(size(0) * 9, TrainConfig(tensor_parallel=ways, recompute_layers=asked)) == kept
    for available in (size(0) * share for share in (0.6, 0.8, 1, 2)):  # what `plan` prints is what `pretrain` does
        planned = fitting(config, data, processes, ways, available, True, device)
        if planned:
            data_as_planned = replace(data, micro_batch_rows=planned.rows)
            assert check_fits(config, data_as_planned, train, processes, available, device, True) == planned


def test_a_plan_says_what_fits():
    recipe = ROOT / "recipes" / "3.6b.toml"
    done = janeox("plan", recipe, "--gpu", "h100", "--num-gpus", "8")
    assert done.returncode == 0, done.stderr
    for part in ("3,607,245,312 parameters", "optimizer state", "GPU-hours", "sent by each GPU", "Not measured"):
        assert part in done.stdout.replace("\n", " ")
    done = janeox("plan", recipe, "model.num_hidden_layers=72")
    assert done.returncode == 1 and "does not fit 1 × H100" in done.stderr and "2 would do" in done.stderr
    assert "no multiple of train.tensor_parallel" in janeox("plan", recipe, "train.tensor_parallel=2").stderr


@pytest.mark.parametrize(
    "settings, message",
    [
        (["--num-gpus=0"], "--num-gpus 0: must be at least 1"),
        (["--num-gpus=0", "--gpu=here"], "--num-gpus 0: must be at least 1"),
        (["--num-gpus=-8"], "--num-gpus -8: must be at least 1"),
        (["--num-gpus=3"], "a batch has 256 rows (data.batch_tokens / data.sequence_length), which 3 processes cannot"),
        (["--num-gpus=512"], "which 512 processes cannot share evenly"),
        (["--num-gpus=6", "train.tensor_parallel=2"], "which 3 processes cannot share evenly"),
        (["--mfu=0"], "--mfu 0.0: must be above 0"),
        (["--mfu=-0.4"], "--mfu -0.4: must be above 0"),
    ],
)
def test_a_plan_refuses_what_cannot_be_run(settings, message):
    done = janeox("plan", "data.batch_tokens=524288", "data.sequence_length=2048", *settings)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    done = janeox("plan", "data.batch_tokens=524288", "data.sequence_length=2048", "--num-gpus=256")
    assert done.returncode == 0 and "1 micro-batch a step" in done.stdout.replace("\n", " ")


@given(
    layers=st.integers(1, 48), recomputed=st.integers(0, 48), rows=st.integers(1, 60), seed=st.integers(0, 2**32),
    spoiled=st.sets(st.integers(0, trial.ROUNDS - 1), max_size=(trial.ROUNDS - 1) // 2),
)  # fmt: skip
def test_a_trial_foretells_what_is_linear_in_layers_and_micro_batches(layers, recomputed, rows, seed, spoiled):
    settings = Plan(
        model=GPTNeoXConfig(64, 32, layers, 2, 64),
        data=DataConfig(sequence_length=8, batch_tokens=8 * rows, micro_batch_rows=4),
        train=TrainConfig(recompute_layers=recomputed),
    )
    draw = random.Random(seed)
    step, portion, held = ([draw.uniform(0.1, 9) for _ in range(3)] for _ in range(3))  # base, a layer of either kind

    def at(plane, size):
        return plane[0] + plane[1] * size.kept + plane[2] * size.recomputed

    @contextmanager
    def process(_settings, size):
        class Answers:
            steps = -1  # the first one warms up

            def send(self, count):
                self.count = count

            def recv(self):
                steps_a_round = 1 if rows <= 4 else 2
                slow = 10 if self.steps < 0 or self.steps // steps_a_round in spoiled else 1
                self.steps += 1
                return slow * (at(step, size) + self.count * at(portion, size)), at(held, size), 2 * at(held, size)

        yield Answers()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_process", process)
        patch.setattr(trial, "SECONDS", 0)
        whole = trial.whole_size(settings)
        told = trial.predict(whole, trial.measure(settings, torch.device("cpu")))
    assert whole.layers == layers
    assert told.median == pytest.approx(at(step, whole) + max(1, rows / 4) * at(portion, whole))
    assert (told.memory, told.state) == pytest.approx((at(held, whole), 2 * at(held, whole)))


def test_a_trial_takes_no_more_layers_than_memory_holds(monkeypatch):
    settings = Plan(data=DataConfig(micro_batch_rows=1), train=TrainConfig(dtype="float32"))  # the 3.6B
    device = torch.device("cpu")

    def layers(gib):
        monkeypatch.setattr(trial, "device_memory", lambda device: gib * GIB)
        return [size.layers for size in trial.fitting_sizes(settings, device, True)]

    assert layers(1000) == [3, 6] and layers(24) == [1, 2]
    with pytest.raises(JaneoxError, match=r"even 1 and 2 layers.* GiB of 8\.0"):
        layers(8)


def test_a_plan_for_this_machine_is_near_what_a_run_holds(tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path)
    assert janeox("run", recipe, "--until", "shards").returncode == 0
    larger = ["model.hidden_size=512", "model.intermediate_size=2048", "model.num_hidden_layers=6", "train.device=cpu"]
    larger += ["train.tokens=1024", "model.num_attention_heads=8"]
    run = start("pretrain", recipe, *larger)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    held = max(row["time"]["memory_gib"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row)
    monkeypatch.setattr(trial, "SECONDS", 0)
    done = janeox("plan", recipe, "--gpu", "here", *larger)
    assert done.returncode == 0, done.stderr
    assert "measuring 2 and 4 of 6 layers" in done.stderr and "3 rounds, about" in done.stderr
    rows = {name: list(map(float, re.findall(r"[\d.]+", text.replace(",", "")))) for name, text in re.findall(
        r"│ (seconds a step|tokens/s|memory, GiB|a save's copy, GiB) +│(.*)", done.stdout)}  # fmt: skip
    assert all(len(row) == 3 for row in rows.values()) and len(rows) == 4
    for seconds, speed in zip(rows["seconds a step"], rows["tokens/s"], strict=True):
        assert 256 / speed == pytest.approx(seconds, rel=0.02, abs=0.001)
    assert rows["memory, GiB"][2] == pytest.approx(held, rel=0.2)
    parameters = sum(p.numel() for p in GPTNeoX(GPTNeoXConfig(2000, 512, 6, 8, 2048)).parameters())
    around = 2 * 2000 * 512  # embedding and head, of which AdamW keeps two figures, as Muon of a matrix one
    assert rows["a save's copy, GiB"][2] == pytest.approx((8 * parameters + 4 * around) / GIB, abs=0.01)
    told = " ".join(done.stdout.split())  # however the terminal's width broke it
    assert f"{parameters:,} parameters: " in told and "(4 steps of 256 tokens)" in told


def test_a_plan_for_this_machine_that_does_not_fit(monkeypatch):
    shape = ["model.vocab_size=500", "model.hidden_size=64", "model.num_hidden_layers=3", "model.num_attention_heads=2"]
    shape += ["model.intermediate_size=64", "data.sequence_length=16", "data.batch_tokens=64", "train.device=cpu"]
    monkeypatch.setattr(trial, "SECONDS", 0)
    monkeypatch.setattr(trial, "device_memory", lambda device: GIB // 8)
    done = janeox("plan", "--gpu", "here", *shape)
    assert done.returncode == 1 and "predicted" in done.stdout
    assert re.search(r"does not fit here: a step needs about [\d.]+ GiB of 0\.1, [\d.]+ too many", done.stderr)
    for wrong in ("--num-gpus=2", "--mfu=0.4", "train.tensor_parallel=2"):
        done = janeox("plan", "--gpu", "here", wrong)
        assert done.returncode == 1 and "measures one process" in done.stderr
