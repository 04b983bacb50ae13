"""Benchmarks: prompts as published, scores as by the harness's own backend, and what is wrong with a user's files."""

import json
from contextlib import suppress

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.samplers import FirstNSampler

from janeox import LM, JaneoxError
from janeox.config import GPTNeoXConfig
from janeox.engine.backend import Row
from janeox.engine.native_backend import NativeBackend, one_torch_thread
from janeox.evaluate.harness import JaneoxLM
from janeox.evaluate.tasks_command import (
    evaluate_tasks,
    load_tasks,
    require_harness,
    task_names,
    transformers_model,
)
from janeox.model import GPTNeoX
from runs import janeox
from tasks_data import SAMPLES, write_task_data
from test_model import theirs

# Of the published evaluation of rinna's models: models/rinna/*/harness.sh in the source of the prompts.
FEW_SHOTS = {
    "jcommonsenseqa": 3, "jnli": 3, "marc_ja": 3, "jsquad": 2, "jaqket_v2": 1, "xlsum_ja": 1, "xwinograd_ja": 0,
    "mgsm": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    require_harness()
    return write_task_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A model of random weights, written by transformers; its context is 320 tokens."""
    config = GPTNeoXConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=320,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    theirs(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder, tokenizer):
    lm = LM(GPTNeoX.from_pretrained(folder), tokenizer)
    return JaneoxLM(NativeBackend.from_model(lm.model, num_slots=6, capacity=320, bits=32), tokenizer)


@pytest.fixture(scope="module")
def harness(folder):
    return transformers_model(str(folder), "cpu", "float32", batch_size=2)


def test_every_task_has_its_published_few_shots(data):
    tasks = load_tasks(tuple(task_names()), data)
    assert {name.split("-")[0] for name in tasks} == set(FEW_SHOTS)
    for name, task in tasks.items():
        assert task.get_config("num_fewshot") == FEW_SHOTS[name.split("-")[0]], name


@pytest.mark.parametrize("name", SAMPLES["prompts"])
def test_prompts_are_the_published_ones_byte_for_byte(name, data):
    """The expected prompts were made by the published code itself; see tests/data/README.md."""
    (task,) = load_tasks((name,), data).values()
    task.sampler = FirstNSampler(list(task.fewshot_docs()))
    prompts = [task.fewshot_context(doc, num_fewshot=task.get_config("num_fewshot")) for doc in task.eval_docs]
    assert len(prompts) == 3 and prompts == SAMPLES["prompts"][name]


@pytest.mark.parametrize("name", task_names())
def test_scores_are_those_of_the_harness_on_transformers(name, data, ours, harness):
    tasks = load_tasks((name,), data)
    found = evaluate_tasks(ours, tasks)
    answers = [instance.resps for instance in tasks[name].instances]
    assert found == evaluate_tasks(harness, tasks)
    for one, other in zip(answers, (instance.resps for instance in tasks[name].instances), strict=True):
        if isinstance(one[0], tuple):
            assert one[0][0] == pytest.approx(other[0][0], rel=1e-4) and one[0][1] == other[0][1]
        else:
            assert one == other


def requests(kind, *arguments):
    return [Instance(kind, {}, one, 0) for one in arguments]


def test_any_requests_are_answered_as_by_the_harness(ours, harness, works):
    """Shared and unshared contexts, none, one too long for the model, and the same question twice."""
    long = "".join(works[:3])[:900]
    pairs = [
        ("", works[0][:9]), *((works[1][:40], text) for text in ("猫", "猫である", "犬", "猫")),
        (works[1][:30] + " ", "とても長い続き"), (long, "猫である"), (long, "と言った。"),
        (works[2][:3], works[2][3:90]),
    ]  # fmt: skip
    found, expected = (model.loglikelihood(requests("loglikelihood", *pairs)) for model in (ours, harness))
    for one, other in zip(found, expected, strict=True):
        assert one[0] == pytest.approx(other[0], rel=1e-4) and one[1] == other[1]
    texts = [(works[0][:50],), (long,), ("猫",)]
    found, expected = (model.loglikelihood_rolling(requests("rolling", *texts)) for model in (ours, harness))
    assert found == pytest.approx(expected, rel=1e-4)
    options = {"until": ["\n", "。"], "max_gen_toks": 12, "do_sample": False}
    asked = [(works[number][:60], options) for number in range(9)] + [(long, options | {"max_gen_toks": 3})]
    found, expected = (model.generate_until(requests("generate_until", *asked)) for model in (ours, harness))
    assert found == expected


def test_greedy_answers_are_told_from_others(ours):
    (text,) = ours.generate_until(requests("generate_until", ("吾輩は", {"max_gen_toks": 4, "until": []})))
    ids = ours.tok_encode("吾輩は")
    said = []
    with torch.no_grad():
        for _ in range(3):
            said.append(int(ours.model.forward([Row(0, 0, [*ids, *said])]).argmax()))
    found = ours._loglikelihood_tokens([(None, ids, said), (None, ids, [*said[:-1], (said[-1] + 1) % 2000])])
    assert found[0][1] and not found[1][1]
    assert text.startswith(ours.tokenizer.decode(said[:2]))


def test_torch_keeps_off_the_kernels_cores_and_gets_them_back(ours):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with suppress(KeyError), one_torch_thread(ours.model):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_the_verb(data, folder, tmp_path):
    done = janeox("tasks", "jnli-1.3-0.2", "--model", folder, "--data", data, "--json-file", tmp_path / "scores.json")
    assert done.returncode == 0 and "acc_norm" in done.stdout and "from jnli-test-v1.3.json" in done.stderr
    row = json.loads((tmp_path / "scores.json").read_text())["scores"]["jnli-1.3-0.2"]
    assert row["documents"] == 3 and row["few_shots"] == 3 and 0 <= row["metrics"]["acc"]["value"] <= 1
    assert "jsquad-1.2-0.4" in janeox("tasks").stdout.split()


def test_what_is_wrong_with_the_users_files(data, folder, tmp_path):
    def error(*arguments):
        done = janeox("tasks", *arguments, "--model", folder)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert "name the folder of the tasks' data: --data FOLDER" in error("jnli-1.3-0.2")
    assert "holds no jnli-valid-*.json" in error("jnli-1.3-0.2", "--data", tmp_path)
    assert "unknown task 'jnli-1.3-02'; did you mean 'jnli-1.3-0.2'?" in error("jnli-1.3-02", "--data", data)
    (tmp_path / "jnli-test-v1.3.json").write_text('{"sentence1": "a", "sentence2": "b", "label": "neutral"}\n')
    file = tmp_path / "jnli-valid-v1.3.json"
    file.write_text(
        '{"sentence1": "a", "sentence2": "b", "label": "neutral"}\n{"sentence1": "a", "label": "neutral"}\n'
    )
    message = error("jnli-1.3-0.2", "--data", tmp_path)
    assert f"{file}:2: a record has no field 'sentence2'; it has sentence1, label" in message
    file.write_text("{...\n")
    assert f"{file}:1: not a JSON record" in error("jnli-1.3-0.2", "--data", tmp_path)
    file.write_text("")
    assert f"{file}: empty" in error("jnli-1.3-0.2", "--data", tmp_path)
    task = tmp_path / "mine.yaml"
    for text in (
        "task: mine\ndoc_to_text: hello\n",
        "task: mine\ntest_split: valid\n",
        "doc_to_text: hello\n",
        "- 1\n",
    ):
        task.write_text(text)
        assert "mine.yaml' cannot be used" in error(task, "--data", data)


def test_a_choice_longer_than_the_context(ours):
    with pytest.raises(JaneoxError, match="a choice has 400 tokens, the model's context 320"):
        ours._loglikelihood_tokens([(None, [5], [7] * 400)])
    with pytest.raises(JaneoxError, match="answered greedily"):
        ours.generate_until(requests("generate_until", ("猫", {"do_sample": True})))
    with pytest.raises(JaneoxError, match="max_gen_toks = 320"):
        ours.generate_until(requests("generate_until", ("猫", {"max_gen_toks": 320})))
