"""Generation against transformers: same tokens, same distribution; stops, seeds and streams."""

import io
import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from benchmarks import splits
from janeox import LM, JaneoxError
from janeox import load as janeox_load
from janeox.config import GPTNeoXConfig, SamplingConfig
from janeox.engine.engine import Engine
from janeox.engine.sampling import draw, next_token_logits
from janeox.engine.stop import StopScanner
from janeox.engine.torch_backend import TorchBackend
from janeox.model import GPTNeoX
from runs import ROOT, janeox
from test_model import shape, theirs

EOS = 3


def generate_ids(model, prompts, **sampling):
    engine = Engine(TorchBackend(model, len(prompts), model.config.max_position_embeddings))
    texts = [engine.submit(prompt, SamplingConfig(**sampling)) for prompt in prompts]
    while not engine.idle:
        engine.step()
    return [text.ids for text in texts]


@pytest.mark.parametrize("number", range(12))
def test_greedy_equals_transformers_token_for_token(number, tmp_path):
    config = shape(number)
    reference = theirs(config, number)
    reference.save_pretrained(tmp_path)
    model = GPTNeoX.from_pretrained(tmp_path)
    prompts = [torch.randint(4, config.vocab_size, (n,)).tolist() for n in (9, 2, 5)]
    ours = generate_ids(model, prompts, max_new_tokens=20, min_new_tokens=5, temperature=0, repetition_penalty=1.1)
    for row, prompt in enumerate(prompts):
        theirs_ids = reference.generate(
            torch.tensor([prompt]), max_new_tokens=20, min_new_tokens=5, do_sample=False, repetition_penalty=1.1,
            bos_token_id=2, eos_token_id=EOS, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert ours[row] == theirs_ids


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
@pytest.mark.parametrize("top_k", [0, 1, 7, 500])
@pytest.mark.parametrize(
    "nucleus",
    [{}, {"top_p": 0.9}, {"top_p": 0.3}, {"top_p": 1e-6}, {"min_p": 0.05}, {"min_p": 1.0}, {"typical_p": 0.9},
     {"typical_p": 0.2}, {"top_p": 0.8, "min_p": 0.1, "typical_p": 0.5}],
)  # fmt: skip
def test_distribution_equals_transformers_processors(penalty, top_k, nucleus):
    torch.manual_seed(0)
    logits, ids = torch.randn(5, 97) * 3, torch.randint(0, 9, (5, 12))
    bias = {4: 2.5, 90: -3.0, 8: -100.0}
    for num_new, ngram in ((0, 0), (4, 2), (4, 3)):
        sampling = SamplingConfig(
            temperature=0.7, top_k=top_k, repetition_penalty=penalty, min_new_tokens=3, max_new_tokens=9,
            no_repeat_ngram_size=ngram, logit_bias=bias, **nucleus,
        )  # fmt: skip
        processors = LogitsProcessorList([SequenceBiasLogitsProcessor([[[id], value] for id, value in bias.items()])])
        if penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(penalty))
        if ngram:
            processors.append(NoRepeatNGramLogitsProcessor(ngram))
        processors.append(MinNewTokensLengthLogitsProcessor(12 - num_new, 3, EOS, device="cpu"))
        processors.append(TemperatureLogitsWarper(0.7))
        if top_k:
            processors.append(TopKLogitsWarper(top_k))
        for name, warper in (
            ("top_p", TopPLogitsWarper),
            ("min_p", MinPLogitsWarper),
            ("typical_p", TypicalLogitsWarper),
        ):
            if name in nucleus:
                processors.append(warper(nucleus[name]))
        padded = torch.cat((ids, torch.full((5, 3), 90)), 1)  # what stands past the length must not count
        lengths, new = torch.full((5,), 12), torch.full((5,), num_new)
        ours = next_token_logits(logits, padded, lengths, new, sampling, EOS)
        assert torch.equal(ours, processors(ids, logits.clone()))


def test_draws_follow_the_distribution_and_never_an_impossible_token():
    logits = torch.tensor([[0.0, -torch.inf, 1.0, 2.0, -torch.inf]])
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    shares = draw(logits.expand(100_000, 5), uniform).bincount(minlength=5) / 100_000
    assert torch.allclose(shares, logits.softmax(1)[0], atol=1e-4)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits.expand(2, 5), ends).tolist() == [0, 3]


@pytest.fixture(scope="module")
def lm(tokenizer):
    """Random weights with the spread of a trained model's logits, and a real tokenizer."""
    config = GPTNeoXConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return LM(GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).eval(), tokenizer)


PROMPTS = ["吾輩は猫である。", "西田幾多郎は、", "", "  東京", "鬱蒼とした森で𠮟る"]


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(lm):
    settings = {"max_new_tokens": 30, "temperature": 0.9, "top_p": 0.95, "seed": 7}
    alone = [lm.generate(prompt, **settings) for prompt in PROMPTS]
    assert lm.generate(PROMPTS, **settings) == alone
    assert lm.generate(PROMPTS[::-1], **settings) == alone[::-1]
    assert lm.generate(PROMPTS[0], **settings | {"seed": 8}) != alone[0]
    copies = lm.generate([PROMPTS[0]] * 3, **settings)
    assert copies[0] == alone[0] and len(set(copies)) == 3
    assert lm.generate([], **settings) == []


def test_stream_joins_to_the_whole_text(lm):
    settings = {"max_new_tokens": 40, "temperature": 1.0, "seed": 1}
    for prompt in PROMPTS:
        whole = lm.generate(prompt, **settings)
        parts = list(lm.stream(prompt, **settings))
        assert "".join(parts) == whole and len(parts) > 5
        ids = generate_ids(lm.model, [lm.tokenizer.encode(prompt)], **settings)[0]
        assert whole == lm.tokenizer.decode(ids)


def test_stop_strings_end_a_text_before_them(lm):
    settings = {"max_new_tokens": 40, "temperature": 1.0, "seed": 1}
    whole = lm.generate(PROMPTS[0], **settings)
    for stop in (whole[0], whole[5:7], whole[10:14], "決して現れない文字列"):
        expected = whole.split(stop)[0]
        assert lm.generate(PROMPTS[0], stop=[stop], **settings) == expected
        assert "".join(lm.stream(PROMPTS[0], stop=stop, **settings)) == expected


def test_lengths(lm):
    for number in (1, 5):
        ids = generate_ids(lm.model, [[5, 6], [7]], max_new_tokens=number, min_new_tokens=number)
        assert [len(row) for row in ids] == [number, number]
    # The end of the context ends the text; a prompt that fills it is an error.
    assert len(generate_ids(lm.model, [[5] * 60], max_new_tokens=50, min_new_tokens=50)[0]) == 5
    with pytest.raises(JaneoxError, match="the prompt has 64 tokens; the model's context is 64"):
        generate_ids(lm.model, [[5] * 64])


@pytest.mark.parametrize(
    "setting",
    [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"max_new_tokens": 0}, {"stop": ""}, {"top_q": 1},
     {"min_new_tokens": 5, "max_new_tokens": 2}],
)  # fmt: skip
def test_meaningless_settings_are_errors(lm, setting):
    with pytest.raises(JaneoxError, match=next(iter(setting))):
        lm.generate("あ", **setting)


def test_the_verb_answers_files_and_streams(lm, tmp_path):
    folder = tmp_path / "model"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save(folder)
    common = ["--model", folder, "--seed", 4, "--max-new-tokens", 12, "--dtype", "float32"]
    settings = {"seed": 4, "max_new_tokens": 12}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    done = janeox("generate", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", *common)
    assert done.returncode == 0 and "a second" in done.stderr and not done.stdout
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["prompt"], row["text"]) for row in rows] == list(
        zip(PROMPTS, lm.generate(PROMPTS, **settings), strict=True)
    )
    (tmp_path / "in.txt").write_text("東京\n京都\n", encoding="utf-8")
    lines = janeox("generate", "--input", tmp_path / "in.txt", *common).stdout.splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["東京", "京都"]
    assert janeox("generate", "東京", *common).stdout == "東京" + lm.generate("東京", **settings) + "\n"
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n[1]\n')
    done = janeox("generate", "--input", tmp_path / "bad.jsonl", *common)
    assert done.returncode == 1 and "bad.jsonl:2" in done.stderr


def test_standard_input_that_is_not_utf_8_is_named(monkeypatch):
    for errors in ("strict", "surrogateescape"):  # as the locale has it
        bytes = io.BytesIO("京都".encode("euc_jp"))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(bytes, encoding="utf-8", errors=errors))
        done = janeox("generate", "-", "--model", "nowhere")
        assert done.returncode == 1 and "standard input: cannot be read as UTF-8 text" in done.stderr


def test_ctrl_c_ends_a_text_with_what_was_made_so_far(lm, tmp_path):
    config = replace(lm.model.config, max_position_embeddings=50_000)
    GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).save_pretrained(tmp_path)
    lm.tokenizer.save(tmp_path)
    asked = "generate 東京 --dtype float32 --seed 4 --max-new-tokens 40000 --min-new-tokens 40000 --model"
    command = [sys.executable, "-m", "janeox.cli", *asked.split(), tmp_path]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background ignores it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, **pipes, cwd=ROOT, preexec_fn=heard) as running:
        begin = b""
        while len(begin) < 100 and (part := running.stdout.read(100)):
            begin += part
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=120)
    shown = (begin + rest).decode("utf-8")  # no broken character
    assert running.returncode == 130 and "Traceback" not in errors.decode()
    whole = janeox_load(tmp_path, dtype="float32").generate("東京", seed=4, max_new_tokens=200, min_new_tokens=200)
    text = shown.removeprefix("東京").removesuffix("\n")
    assert len(text) > 10 and text[:100] == whole[: len(text[:100])]


def test_texts_are_shown_as_they_are_wherever_they_are_cut(tokenizer):
    assert 100 < splits.check(tokenizer, 2000) < 2000


def test_an_assistant_changes_no_text(lm, tmp_path):
    small = GPTNeoX(replace(lm.model.config, num_hidden_layers=1)).initialize(torch.Generator().manual_seed(1)).eval()
    for name, model in (("large", lm.model), ("small", small)):
        model.save_pretrained(tmp_path / name)
        lm.tokenizer.save(tmp_path / name)
    assisted = janeox_load(tmp_path / "large", dtype="float32", assistant_model=tmp_path / "small")
    assert assisted.engine(2, 40).draft.backend.capacity == 40
    for sampling in ({"temperature": 0}, {"temperature": 0.8, "seed": 3}):
        plain = janeox_load(tmp_path / "large", dtype="float32").generate(PROMPTS, max_new_tokens=20, **sampling)
        assert assisted.generate(PROMPTS, max_new_tokens=20, **sampling) == plain
    GPTNeoX(replace(small.config, vocab_size=small.config.vocab_size + 1)).save_pretrained(tmp_path / "other")
    lm.tokenizer.save(tmp_path / "other")
    with pytest.raises(JaneoxError, match="other: has another vocabulary"):
        janeox_load(tmp_path / "large", assistant_model=tmp_path / "other")


def test_a_tokenizer_of_another_model_is_an_error(lm):
    small = GPTNeoX(GPTNeoXConfig(64, 32, 1, 2, 64))
    with pytest.raises(JaneoxError, match="do not belong together"):
        LM(small, lm.tokenizer)


@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_stop_scanner_equals_a_search_in_the_whole(parts, stops):
    scanner = StopScanner(tuple(stops))
    shown = ""
    for part in parts:
        shown += scanner.push(part)
        # Nothing is held back that cannot become a stop string any more.
        assert scanner.stopped or len(scanner._held) < max([len(stop) for stop in stops], default=1)
    shown += scanner.flush()
    whole = "".join(parts)
    # The stop string that is complete first wins; of several complete at once, the one that begins first.
    ends = [whole.find(stop) for stop in stops if stop in whole]
    if not ends:
        assert shown == whole and not scanner.stopped
    else:
        assert scanner.stopped and whole.startswith(shown) and not any(stop in shown for stop in stops)
