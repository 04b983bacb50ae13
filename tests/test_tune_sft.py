"""SFT: packing, its loss and gradients against TRL's SFTTrainer, LoRA against peft, restarts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import janeox
from janeox.dialogue import Encoded
from janeox.model import GPTNeoX
from janeox.tune.sft import pack, read_conversations, sft_objective
from runs import janeox as run_janeox
from runs import metrics
from tuning import conversations, write_jsonl, write_model


@pytest.fixture(scope="module")
def folder(tokenizer, works, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    write_model(folder / "base", tokenizer)
    write_jsonl(folder / "data.jsonl", conversations(works))
    write_jsonl(folder / "valid.jsonl", conversations(works, 6))
    return folder


def sft(folder, out, *more):
    command = ["sft", "--model", folder / "base", "--data", folder / "data.jsonl", "--valid", folder / "valid.jsonl"]
    command += ["--out", out, "--max-tokens", 128, "--batch-rows", 4, "--micro-batch-rows", 2, "--epochs", 4]
    command += ["--optim.learning-rate", "1e-3", "--train.dtype", "float32", "--train.log-every", 1]
    command += ["--train.sample-every", 0, "--train.save-every", 3]
    return run_janeox(*command, *more)


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=30)


@given(lengths)
def test_packing_loses_and_mixes_nothing(drawn):
    encoded = [
        Encoded([10 * at + i for i in range(n)], [10 * at + i + 1 for i in range(n)]) for at, n in enumerate(drawn)
    ]
    packed = pack(encoded, 8, 999_999, seed=3)
    found = []
    for ids, targets, documents in zip(*packed, strict=True):
        for number in range(documents.max() + 1):
            at = documents == number
            if (ids[at] != 999_999).any():
                found.append((ids[at].tolist(), targets[at].tolist()))
            else:
                assert (targets[at] == -1).all()
    assert sorted(found) == sorted((one.ids[:8], one.targets[:8]) for one in encoded)
    assert len(packed.ids) <= max(1, 2 * sum(min(n, 8) for n in drawn) / 8)  # at most twice the least


def test_loss_and_gradients_are_those_of_trl(folder, tokenizer, tmp_path):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    encoded = read_conversations(tokenizer, [folder / "data.jsonl"])
    packed = pack(encoded, 128, 3, seed=0)
    assert packed.documents.max() > 1
    model = GPTNeoX.from_pretrained(folder / "base").requires_grad_(True)
    loss, count = sft_objective(model, {name: torch.from_numpy(array) for name, array in packed._asdict().items()})
    (loss / count).backward()

    rival = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="eager")
    trainer = SFTTrainer(
        rival,
        SFTConfig(str(tmp_path), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False),
        train_dataset=Dataset.from_list([{"input_ids": [5, 6, 3]}]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "base"),
    )
    T = max(len(one.ids) for one in encoded) + 1
    ids = torch.full((len(encoded), T), 0)
    labels, attention = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, one in enumerate(encoded):
        n = len(one.ids)
        ids[row, : n + 1] = torch.tensor([*one.ids, one.targets[-1]])
        labels[row, 1 : n + 1] = torch.tensor([target if target >= 0 else -100 for target in one.targets])
        attention[row, : n + 1] = 1
    expected = trainer.compute_loss(trainer.model, {"input_ids": ids, "labels": labels, "attention_mask": attention})
    expected.backward()
    assert (loss / count).item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = {name.replace("lm_head", "embed_out"): p.grad for name, p in trainer.model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-4, atol=1e-6)


def test_learns_and_goes_on_exactly(folder, tmp_path):
    done = sft(folder, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "whole")
    losses = [row["valid_loss"] for row in rows if "valid_loss" in row]
    steps = [row["loss"] for row in rows if "loss" in row]
    assert steps[-1] < steps[0] - 0.3
    assert losses[-1] < 7.8
    from janeox.train import loop

    saved, run = loop.Saver.save, tmp_path / "cut"

    def dies(saver, step):
        saved(saver, step)
        saver.wait()
        if step == 6:
            raise SystemExit(9)

    loop.Saver.save = dies
    try:
        assert sft(folder, run).returncode == 9
    finally:
        loop.Saver.save = saved
    assert len(metrics(run)) < len(rows)
    assert sft(folder, run).returncode == 0
    assert metrics(run) == rows
    names = ("model.safetensors", "config.json", "tokenizer_config.json")
    for name in names:
        assert (run / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()
    assert "chat_template" in (run / "model" / "tokenizer_config.json").read_text()
    assert "other settings" in sft(folder, run, "--optim.learning-rate", "2e-3").stderr


def test_lora_loads_in_peft_and_merges_into_a_plain_folder(folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = sft(folder, tmp_path, "--lora-rank", 4, "--lora-alpha", 8)
    assert done.returncode == 0, done.stderr
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 700, 8]])
    before = base(ids).logits
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))(ids).logits
    merged = janeox.load(tmp_path / "model").model(ids)
    assert (before - merged).abs().max() > 0.01
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-4)
    frozen = janeox.load(folder / "base").model
    assert torch.equal(frozen.embed_out.weight, janeox.load(tmp_path / "model").model.embed_out.weight)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([{"speaker": "ボット", "text": "a"}], r"data.jsonl:1, turn 1: unknown speaker 'ボット'"),
        ([{"speaker": "ユーザー", "text": ""}], r"data.jsonl:1, turn 1: 'ユーザー' says nothing"),
        ([{"speaker": "ユーザー", "text": "a"}], r"data.jsonl:1: nobody answers"),
    ],
)
def test_bad_rows(folder, tmp_path, row, says):
    data = write_jsonl(tmp_path / "data.jsonl", [row])
    done = sft(folder, tmp_path / "run", "--data", data)
    assert done.returncode == 1
    assert says in done.stderr
    assert not (tmp_path / "run" / "state").exists()
