"""The loop: exact resume after kill -9, signals, portions of a batch, and steps that are not finite."""

import multiprocessing
import random
import resource
import shutil
import signal
import time

import pytest
import torch
import torch.distributed.checkpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from janeox import JaneoxError
from janeox.config import GPTNeoXConfig, OptimConfig, TrainConfig
from janeox.model import GPTNeoX
from janeox.recipe import read_recipe
from janeox.settings.train import Pretrain
from janeox.train import loop, pretrain
from janeox.train.checkpoint import sole
from janeox.train.loop import no_step, recompute_layers, sound, take_step
from janeox.train.memory import USABLE, Layout, needed
from janeox.train.metrics import Metrics, read_metrics
from janeox.train.optim import build
from janeox.train.parallel import World
from janeox.train.pretrain import next_token_objective
from runs import janeox, metrics, start, write_recipe

ALONE = World(torch.device("cpu"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A recipe whose corpus, tokenizer and shards are made, and its whole run of 20 steps."""
    folder = tmp_path_factory.mktemp("prepared")
    recipe = write_recipe(folder)
    for verb in ("clean", "train-tokenizer", "tokenize", "pretrain"):
        done = janeox(verb, recipe)
        assert done.returncode == 0, done.stderr
    return recipe


def fresh(prepared, folder):
    """The recipe's run folder before training, copied to `folder`."""
    shutil.copytree(prepared.parent / "run", folder, ignore=shutil.ignore_patterns("state", "model", "metrics.jsonl"))


def wait_for_row(run, step):
    for _ in range(1200):
        file = run / "metrics.jsonl"
        if file.exists() and any(row["step"] >= step for row in read_metrics(file)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{run}: no step {step} within a minute")


def same_weights(one, other):
    return (one / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()


def test_20_steps_equal_10_and_a_kill_and_10_more(prepared, tmp_path):
    whole, run = prepared.parent / "run", tmp_path / "run"
    fresh(prepared, run)
    process = start("pretrain", prepared, "--out", run)
    wait_for_row(run, 11)  # step 10's save waits for step 5's, which a thread writes
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = len({row["step"] for row in metrics(run)})
    assert 11 <= killed_at < 20 and not same_weights(whole, run)
    done = janeox("pretrain", prepared, "--out", run)
    assert done.returncode == 0, done.stderr
    assert metrics(run) == metrics(whole) and [row["step"] for row in metrics(run)][-1] == 20
    assert same_weights(whole, run)


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
def test_a_signal_saves_and_the_same_command_goes_on(prepared, tmp_path, numbers):
    whole, run = prepared.parent / "run", tmp_path / "run"
    fresh(prepared, run)
    process = start("pretrain", prepared, "--out", run)
    wait_for_row(run, 3)
    for number in (signal.SIGSTOP, *numbers, signal.SIGCONT):  # several are received in the same step
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from there" in output and "Traceback" not in output
    assert (run / "model" / "config.json").exists() and metrics(run)[-1]["step"] < 20
    assert janeox("pretrain", prepared, "--out", run).returncode == 0
    assert metrics(run) == metrics(whole) and same_weights(whole, run)


def test_a_finished_run_is_not_trained_again(prepared, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(prepared.parent / "run", run)
    shutil.rmtree(run / "model")  # as after a kill between two saves
    done = janeox("pretrain", prepared, "--out", run)
    assert done.returncode == 0 and "20 of 20 steps were done before" in done.stderr
    assert metrics(run) == metrics(prepared.parent / "run") and same_weights(prepared.parent / "run", run)


def test_a_run_with_other_settings_is_an_error(prepared):
    run = prepared.parent / "run"
    before = (run / "config.toml").read_text()
    done = janeox("pretrain", prepared, "optim.learning_rate=1e-3")
    assert done.returncode == 1 and "optim.learning_rate was 0.005, now 0.001" in done.stderr
    assert (run / "config.toml").read_text() == before
    assert janeox("pretrain", prepared, "train.log_every=3").returncode == 0


def test_two_processes_do_not_train_into_one_folder(prepared, tmp_path):
    run = tmp_path / "run"
    fresh(prepared, run)
    with sole(run):
        done = janeox("pretrain", prepared, "--out", run, "train.tokens=512")
        assert done.returncode == 1 and "another process trains there" in done.stderr
        assert not (run / "metrics.jsonl").exists()
    assert janeox("pretrain", prepared, "--out", run, "train.tokens=512").returncode == 0


def test_an_out_folder_that_is_a_file_is_named(prepared, tmp_path):
    (tmp_path / "file").write_text("")
    inputs = ("--shards", prepared.parent / "run/shards", "--tokenizer-folder", prepared.parent / "run/tokenizer")
    for arguments in (("pretrain", prepared, *inputs), ("clean", prepared)):
        done = janeox(*arguments, "--out", tmp_path / "file")
        assert done.returncode == 1 and "file/" in done.stderr and "cannot be written" in done.stderr


def test_a_full_disk_leaves_the_metrics_that_were_there(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        with pytest.raises(JaneoxError, match="cannot be written"):
            Metrics(file, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [row["step"] for row in read_metrics(file)] == [1]


def test_a_damaged_state_is_named(prepared, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(prepared.parent / "run", run)
    file = max((run / "state").iterdir(), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:1000])
    done = janeox("pretrain", prepared, "--out", run)
    assert done.returncode == 1 and "state: cannot go on from it" in done.stderr and "Traceback" not in done.stderr


def model_and_rows():
    model = GPTNeoX(GPTNeoXConfig(97, 32, 2, 2, 64)).initialize(torch.Generator().manual_seed(0))
    return model, torch.randint(0, 97, (6, 17), generator=torch.Generator().manual_seed(1))


def test_portions_of_a_batch_give_its_gradient():
    """6 rows in portions of 4 and 2 weigh by their tokens: the same step as all at once."""
    results = []
    for portion in (6, 4, 1):
        model, rows = model_and_rows()
        optim = OptimConfig(learning_rate=0.01)
        optimizers = build(model, optim, model.config.head_dim)
        loss, norm = take_step(
            model, optimizers, next_token_objective, rows, portion, 0.01, optim, TrainConfig(dtype="float32"), ALONE
        )
        results.append((loss, norm, model.embed_out.weight.detach()))
    for loss, norm, weight in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6) and norm == pytest.approx(results[0][1], rel=1e-5)
        assert torch.allclose(weight, results[0][2], atol=1e-5)


def test_a_step_that_is_not_finite_leaves_the_weights():
    model, rows = model_and_rows()
    optim = OptimConfig(name="muon")
    optimizers = build(model, optim, model.config.head_dim)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def broken(model, rows):
        loss, count = next_token_objective(model, rows)
        return loss * float("inf"), count

    loss, _ = take_step(model, optimizers, broken, rows, 6, 0.01, optim, TrainConfig(dtype="float32"), ALONE)
    assert loss == float("inf") and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    take_step(model, optimizers, next_token_objective, rows, 6, 0.01, optim, TrainConfig(dtype="float32"), ALONE)
    assert all(torch.isfinite(value).all() for value in model.parameters())
    assert not torch.equal(model.embed_out.weight, before["embed_out.weight"])


def test_clipping_bounds_the_update():
    model, rows = model_and_rows()
    optim = OptimConfig(clip_norm=1e-3)
    seen = []
    optimizers = build(model, optim, model.config.head_dim)
    optimizers[0].register_step_pre_hook(
        lambda optimizer, *_: seen.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
    )
    _, norm = take_step(
        model, optimizers, next_token_objective, rows, 6, 0.01, optim, TrainConfig(dtype="float32"), ALONE
    )
    assert norm > 0.1 and seen == [pytest.approx(1e-3, rel=0.01)]


def test_metrics_survive_a_cut_line_and_name_a_damaged_one(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(file)] == [1, 2]
    Metrics(file, 1).write(2, 512, {"loss": 1.5}, {"seconds": 0.1})
    assert [row["step"] for row in read_metrics(file)] == [1, 2] and read_metrics(file)[1]["loss"] == 1.5
    file.write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(JaneoxError, match=r"metrics\.jsonl:2"):
        read_metrics(file)


def saved_step(run):
    state = {"step": 0}
    torch.distributed.checkpoint.load(state, checkpoint_id=run / "state", no_dist=True)
    return state["step"]


def test_20_kills_at_random_moments(prepared, tmp_path):
    """None leaves a folder that does not load, or loses more than the steps since the save before the one at work."""
    long = ("train.tokens=30720", "train.save_every=2", "train.evaluate_every=300")  # 120 steps
    whole, run = tmp_path / "whole", tmp_path / "run"
    pick, fork, kills = random.Random(0), multiprocessing.get_context("fork"), []
    fresh(prepared, whole)
    assert janeox("pretrain", prepared, *long, "--out", whole).returncode == 0
    fresh(prepared, run)
    for _ in range(20):
        rows = len(metrics(run)) if (run / "metrics.jsonl").exists() else 0
        child = fork.Process(target=janeox, args=("pretrain", prepared, *long, "--out", run))
        child.start()
        for _ in range(6000):  # it is at work: its rows grow
            if not child.is_alive() or ((run / "metrics.jsonl").exists() and len(metrics(run)) > rows):
                break
            time.sleep(0.005)
        time.sleep(pick.uniform(0, 0.1))
        child.kill()
        child.join()
        last = metrics(run)[-1]["step"]
        kills.append(last)
        if (run / "state").exists():
            assert last - saved_step(run) <= 4
            GPTNeoX.from_pretrained(run / "model")
        else:
            assert last <= 4
    assert len(set(kills)) > 10 and not same_weights(whole, run)
    assert janeox("pretrain", prepared, *long, "--out", run).returncode == 0
    assert metrics(run) == metrics(whole) and same_weights(whole, run)


def test_only_the_last_saves_are_kept_and_each_can_be_gone_on_from(prepared, tmp_path):
    run = tmp_path / "run"
    fresh(prepared, run)
    assert janeox("pretrain", prepared, "train.keep=2", "--train.log-to", "tensorboard", "--out", run).returncode == 0
    assert sorted(folder.name for folder in (run / "kept").iterdir()) == ["step-00000015", "step-00000020"]
    assert GPTNeoX.from_pretrained(run / "kept/step-00000015/model").config.vocab_size == 2000
    shutil.rmtree(run / "state")
    (run / "kept/step-00000015/state").rename(run / "state")
    assert janeox("pretrain", prepared, "--out", run).returncode == 0
    assert same_weights(prepared.parent / "run", run)
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == pytest.approx({row["step"]: row["loss"] for row in metrics(run) if "loss" in row})


def test_what_cannot_fit_is_said_before_the_first_step(prepared, tmp_path):
    run = tmp_path / "run"
    fresh(prepared, run)
    done = janeox("pretrain", prepared, "model.num_hidden_layers=100000", "model.hidden_size=4096", "--out", run)
    assert done.returncode == 1 and "a step needs about" in done.stderr and "too few; no micro-batch" in done.stderr


def test_a_run_recomputes_what_memory_asks_and_stays_the_same(prepared, tmp_path, monkeypatch):
    settings = read_recipe(Pretrain, prepared)
    both, none = (needed(settings.model, settings.data, Layout(1, 1, 4, number), False, "cpu") for number in (2, 0))
    assert both < none
    monkeypatch.setattr(pretrain, "device_memory", lambda device: round(both / USABLE) + 1)
    asked = []
    monkeypatch.setattr(
        loop, "recompute_layers", lambda model, number: (asked.append(number), recompute_layers(model, number))
    )
    fresh(prepared, tmp_path / "run")
    done = janeox("pretrain", prepared, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "\n2 of 2 layers are computed again in the backward pass, so that 4 rows fit" in done.stdout
    assert asked == [2]
    assert metrics(tmp_path / "run") == metrics(prepared.parent / "run")
    assert same_weights(prepared.parent / "run", tmp_path / "run")
    fresh(prepared, tmp_path / "set")
    monkeypatch.setattr(pretrain, "device_memory", lambda device: 2**40)
    done = janeox("pretrain", prepared, "train.tokens=256", "train.recompute_layers=1", "--out", tmp_path / "set")
    assert done.returncode == 0 and "computed again" not in done.stdout and asked == [2, 1]


def test_a_run_that_leaves_out_every_batch_ends(prepared, tmp_path):
    run = tmp_path / "run"
    fresh(prepared, run)
    never = ["train.tokens=30720", "train.save_every=80", "train.evaluate_every=1000", "optim.skip_norm=1e-9"]
    done = janeox("pretrain", prepared, *never, "--out", run)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "100 batches in a row were left out" in done.stderr and "a larger optim.skip_norm than 1e-09" in done.stderr
    assert [row["step"] for row in metrics(run) if row.get("skipped")] == list(range(1, 101))
    assert GPTNeoX.from_pretrained(run / "model").config.vocab_size == 2000
    done = janeox("pretrain", prepared, *never, "--out", run)  # the save of step 80 is whole
    assert "80 of 120 steps were done before" in done.stderr and "in a row" not in done.stderr
    assert metrics(run)[-1]["step"] == 120
    broken = no_step(run, float("nan"), float("nan"), OptimConfig())
    assert "loss is nan, its gradient norm nan" in broken and "a smaller optim.learning_rate" in broken


def test_recomputed_layers_give_the_same_step():
    losses = []
    for number in (0, 1, 2):
        model, rows = model_and_rows()
        recompute_layers(model, number)
        optim = OptimConfig()
        optimizers = build(model, optim, model.config.head_dim)
        config = TrainConfig(dtype="float32")
        losses.append(take_step(model, optimizers, next_token_objective, rows, 6, 0.01, optim, config, ALONE))
    assert losses[0] == losses[1] == losses[2]


def test_a_batch_with_a_huge_gradient_is_left_out():
    model, rows = model_and_rows()
    optim = OptimConfig(skip_norm=1e-3)
    optimizers = build(model, optim, model.config.head_dim)
    before = model.embed_out.weight.detach().clone()
    loss, norm = take_step(
        model, optimizers, next_token_objective, rows, 6, 0.01, optim, TrainConfig(dtype="float32"), ALONE
    )
    assert norm > 1e-3 and not sound(loss, norm, optim) and torch.equal(model.embed_out.weight, before)
