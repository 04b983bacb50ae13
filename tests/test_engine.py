"""The engine: batches and guesses change nothing but the speed, and nothing is left behind."""

import copy
import random
from dataclasses import replace

import pytest
import torch

from janeox import JaneoxError
from janeox.config import GPTNeoXConfig, SamplingConfig
from janeox.engine.backend import Row
from janeox.engine.engine import Engine
from janeox.engine.gpu_weights import GROUP, QuantisedLinear, quantise
from janeox.engine.pace import Pace
from janeox.engine.packing import quantised
from janeox.engine.torch_backend import TorchBackend
from janeox.model import GPTNeoX

CONFIG = GPTNeoXConfig(
    vocab_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=96, initializer_range=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return GPTNeoX(CONFIG).initialize(torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="module")
def draft(model):
    """A smaller model that often prefers the same tokens: the first layer of the other."""
    small = GPTNeoX(replace(CONFIG, num_hidden_layers=1)).eval()
    small.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in small.state_dict()})
    return small


def run(model, requests, num_slots, draft=None, ahead=1):
    backend = TorchBackend(model, num_slots, 96)
    backend.ahead = ahead
    engine = Engine(backend, draft=draft and TorchBackend(draft, num_slots, 96))
    texts = [engine.submit(ids, sampling) for ids, sampling in requests]
    steps = 0
    while not engine.idle:
        engine.step()
        steps += 1
    return texts, steps


def test_backend_answers_for_ragged_rows_as_the_model_alone(model):
    pick = random.Random(0)
    backend = TorchBackend(model, 6, 96)
    held = {slot: [] for slot in range(6)}
    for _ in range(40):
        rows = []
        for slot in pick.sample(range(6), pick.randint(1, 6)):
            start = pick.randint(0, len(held[slot]))  # a rewind is free
            ids = [pick.randrange(16) for _ in range(min(96 - start, pick.choice([1, 1, 3, 17])))]
            if ids:
                held[slot] = held[slot][:start] + ids
                rows.append(Row(slot, start, ids))
        if not rows:
            continue
        every = pick.random() < 0.5
        found = backend.forward(rows, every)
        with torch.no_grad():
            alone = [model(torch.tensor([held[row.slot]]))[0] for row in rows]
        expected = [one[row.start if every else -1 :] for row, one in zip(rows, alone, strict=True)]
        assert found.dtype == torch.float32 and (found - torch.cat(expected)).abs().max() < 1e-4
    backend.copy(0, 3, len(held[0]))
    again = [backend.forward([Row(slot, len(held[0]) - 1, held[0][-1:])]) for slot in (0, 3)]
    assert torch.equal(*again)


def mixed(count):
    pick = random.Random(1)
    for number in range(count):
        settings = {"temperature": pick.choice([0.0, 0.7, 1.0]), "top_k": pick.choice([0, 5]), "seed": number}
        settings |= {"repetition_penalty": pick.choice([1.0, 1.2]), "no_repeat_ngram_size": pick.choice([0, 4])}
        settings |= {"min_p": pick.choice([0.0, 0.05]), "top_logprobs": pick.choice([0, 3])}
        length = pick.randint(1, 40)
        yield [pick.randrange(16) for _ in range(length)], SamplingConfig(pick.randint(1, 60), **settings)


def test_answers_are_the_same_alone_and_in_any_batch(model):
    requests = list(mixed(40))
    together, _ = run(model, requests, 7)
    for request, text in zip(requests, together, strict=True):
        (alone,), _ = run(model, [request], 1)
        assert (alone.ids, alone.finish_reason) == (text.ids, text.finish_reason)
        assert torch.allclose(torch.tensor(alone.logprobs), torch.tensor(text.logprobs), atol=1e-4)


def test_logprobs_are_those_of_the_model(model):
    (text,), _ = run(model, [([5, 6, 7], SamplingConfig(20, temperature=0.5, seed=3, top_logprobs=2))], 1)
    with torch.no_grad():
        logp = model(torch.tensor([text.prompt + text.ids]))[0].log_softmax(1)[2:-1]
    expected = logp.gather(1, torch.tensor(text.ids)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(text.logprobs), expected, atol=1e-4)
    for place, top in enumerate(text.top_logprobs):
        assert [id for id, _ in top] == logp[place].topk(2).indices.tolist()


def test_guesses_change_only_the_number_of_steps(model):
    requests = [(ids * 3, sampling) for ids, sampling in mixed(30) if len(ids) * 3 < 96]
    guessing = [(ids, replace(sampling, prompt_lookup_num_tokens=8)) for ids, sampling in requests]
    plain, _ = run(model, requests, 4)
    fast, _ = run(model, guessing, 4)
    assert [text.ids for text in plain] == [text.ids for text in fast]
    greedy = SamplingConfig(90, 90, temperature=0)  # a random model's greedy text soon goes in a circle
    (one,), steps = run(model, [([1, 2], greedy)], 1)
    (other,), fewer = run(model, [([1, 2], replace(greedy, prompt_lookup_num_tokens=8))], 1)
    assert one.ids == other.ids and fewer * 1.5 < steps


def test_a_smaller_models_guesses_change_only_the_number_of_steps(model, draft):
    requests = list(mixed(30))
    plain, steps = run(model, requests, 4)
    for small in (draft, model):
        fast, fewer = run(model, requests, 4, small)
        assert [(text.ids, text.finish_reason) for text in plain] == [(text.ids, text.finish_reason) for text in fast]
        assert fewer < steps
    # A guesser that is the model itself is always right: five guesses and the token after them a step.
    (one,), steps = run(model, [([1, 2], SamplingConfig(60, 60, temperature=1, seed=0))], 1)
    (other,), fewer = run(model, [([1, 2], SamplingConfig(60, 60, temperature=1, seed=0))], 1, model)
    assert one.ids == other.ids and steps == 60 and fewer <= 12


def test_tokens_chosen_ahead_are_those_chosen_one_by_one(model):
    requests = [(ids, replace(sampling, min_new_tokens=sampling.max_new_tokens // 3)) for ids, sampling in mixed(40)]
    plain, _ = run(model, requests, 7)
    ahead, _ = run(model, requests, 7, ahead=5)
    reasons = set()
    for one, other in zip(plain, ahead, strict=True):
        assert (one.ids, one.finish_reason) == (other.ids, other.finish_reason)
        assert [[id for id, _ in top] for top in one.top_logprobs] == [
            [id for id, _ in top] for top in other.top_logprobs
        ]
        assert torch.allclose(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-4)
        reasons.add(one.finish_reason)
    assert reasons == {"stop", "length"}
    # Past the end of the context nothing is touched: texts beside it stay as they are.
    full = [([5] * 90, SamplingConfig(60, 60, seed=1)), ([7, 8], SamplingConfig(60, 60, seed=2))]
    assert [text.ids for text in run(model, full, 2)[0]] == [text.ids for text in run(model, full, 2, ahead=16)[0]]


@pytest.mark.parametrize("guesses", ["none", "lookup", "draft"])
def test_samples_follow_the_models_own_law(model, draft, guesses, monkeypatch):
    learnt, learn = [], Pace.learn
    monkeypatch.setattr(Pace, "learn", lambda pace, *counts: learnt.append(counts) or learn(pace, *counts))
    prompt = [id for last in range(16) for id in (7, 9, last)] + [7, 9]  # whatever comes next, it was there before
    with torch.no_grad():
        first = model(torch.tensor([prompt]))[0, -1].softmax(0)
        after = model(torch.tensor([[*prompt, id] for id in range(16)]))[:, -1].softmax(1)
    law = (first[:, None] * after).double()  # of the first two tokens
    law[3] = 0  # `</s>` ends a text
    counts = torch.zeros(16, 16, dtype=torch.double)
    looked_up = 4 if guesses == "lookup" else 0
    sampling = [SamplingConfig(3, temperature=1, seed=n, prompt_lookup_num_tokens=looked_up) for n in range(3000)]
    small = draft if guesses == "draft" else None
    for text in run(model, [(prompt, one) for one in sampling], 64, small)[0]:
        if len(text.ids) > 1:
            counts[text.ids[0], text.ids[1]] += 1
    right, wrong = sum(accepted for _, accepted in learnt), sum(guessed - accepted for guessed, accepted in learnt)
    assert guesses == "none" or min(right, wrong) > 50
    expected = law / law.sum() * counts.sum()
    often = expected >= 5
    observed = torch.cat((counts[often], counts[~often].sum()[None]))
    wanted = torch.cat((expected[often], expected[~often].sum()[None]))
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    degrees = torch.tensor(len(wanted) - 1.0)
    assert torch.special.gammaincc(degrees / 2, statistic.float() / 2) > 1e-3  # the p-value of the chi-square test


@pytest.mark.parametrize("bits,most", [(8, 0.03), (4, 0.3)])
def test_weights_of_8_or_4_bits_change_logits_little(bits, most):
    config = replace(CONFIG, hidden_size=128, intermediate_size=256, initializer_range=0.05)
    model = GPTNeoX(config).initialize(torch.Generator().manual_seed(0)).eval()
    ids = torch.tensor([[1, 2, 4, 5, 6, 7, 8, 9]])
    with torch.no_grad():
        exact, found = model(ids), quantise(copy.deepcopy(model), bits)(ids)
    assert most / 10 < (found - exact).norm() / exact.norm() < most
    with pytest.raises(JaneoxError, match="multiples of 128"):
        quantise(GPTNeoX(CONFIG), bits)
    with torch.no_grad():
        model.gpt_neox.layers[1].mlp.dense_4h_to_h.weight[0, 0] = float("nan")
    with pytest.raises(JaneoxError, match="dense_4h_to_h"):
        quantise(model, bits)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_layer_of_few_bits_is_its_rounded_weights(bits):
    linear = torch.nn.Linear(256, 7)
    layer, group = QuantisedLinear(linear, bits), GROUP[bits]
    grouped = linear.weight.detach().view(7, -1, group)
    scales = layer.scales.float()[..., None]
    rounded = quantised(grouped, scales.half(), bits) * scales
    x = torch.randn(3, 256)
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, rounded.view(7, 256), linear.bias), atol=1e-5)
    assert layer.weight.nbytes == 7 * 256 * bits // 8


def test_cancelled_texts_give_their_slots_back(model):
    engine = Engine(TorchBackend(model, 2, 96))
    texts = [engine.submit([5] * 9, SamplingConfig(50, 50, seed=n)) for n in range(5)]
    for _ in range(3):
        engine.step()
    engine.cancel(texts[0])
    engine.cancel(texts[4])
    while not engine.idle:
        engine.step()
    engine.cancel(texts[1])  # finished: nothing happens
    assert [text.finish_reason for text in texts] == ["cancelled", "length", "length", "length", "cancelled"]
    assert len(texts[0].ids) == 3 and not texts[4].ids and sorted(engine._slots.free) == [0, 1] and not engine._writers


def test_shared_beginnings_are_computed_once(model):
    counted = []

    class Counting(TorchBackend):
        def forward(self, rows, every=False):
            counted.extend(len(row.ids) for row in rows)
            return super().forward(rows, every)

    pick = random.Random(3)
    begin = [pick.randrange(4, 16) for _ in range(40)]
    prompts = [begin + [pick.randrange(4, 16) for _ in range(n)] for n in (0, 5, 9, 2, 7)] + [begin[:30], [5] * 20]
    sampling = SamplingConfig(10, 10, temperature=1.0, seed=1)
    engine = Engine(Counting(model, 3, 96))
    first = engine.submit(prompts[0], sampling)
    engine.step()  # its prompt is there now, and it goes on while others start from it
    others = [engine.submit(prompt, sampling) for prompt in prompts[1:]]
    while not engine.idle:
        engine.step()
    for prompt, text in zip(prompts, [first, *others], strict=True):
        (alone,), _ = run(model, [(prompt, sampling)], 1)
        assert text.ids == alone.ids
    new = 40 + (5 + 9 + 2 + 7) + 1 + 20  # the last token of a prompt is always computed
    assert sum(counted) <= new + 7 * 9


def test_one_prompt_that_comes_several_times_at_once_is_read_once(model):
    counted = []

    class Counting(TorchBackend):
        def forward(self, rows, every=False):
            counted.extend(len(row.ids) for row in rows)
            return super().forward(rows, every)

    prompt, other = [5, 6, 7, 8] * 10, [9] * 40
    requests = [(ids, SamplingConfig(10, 10, temperature=1.0, seed=n)) for n, ids in enumerate([prompt] * 4 + [other])]
    engine = Engine(Counting(model, 5, 96))
    texts = [engine.submit(*request) for request in requests]
    engine.step()
    assert [len(text.ids) for text in texts] == [1, 0, 0, 0, 1]  # who has another prompt does not wait
    while not engine.idle:
        engine.step()
    for request, text in zip(requests, texts, strict=True):
        (alone,), _ = run(model, [request], 1)
        assert text.ids == alone.ids
    assert sum(counted) == 40 + 40 + 3 + 5 * 9  # the last token of a prompt is always computed


def test_ten_thousand_requests_leave_nothing_behind(model):
    class Instant:
        """Answers at once, so that ten thousand requests take seconds."""

        config, num_slots, capacity = CONFIG, 64, 96

        def forward(self, rows, every=False):
            return torch.zeros(sum(len(row.ids) for row in rows) if every else len(rows), 16)

        def copy(self, source, target, length):
            pass

    engine = Engine(Instant())
    pick = random.Random(0)
    for number in range(10_000):
        engine.submit([1] * pick.randint(1, 90), SamplingConfig(pick.randint(1, 8), seed=number))
        if number % 64 == 0:
            engine.step()
    while not engine.idle:
        engine.step()
    assert sorted(engine._slots.free) == list(range(64)) and not engine._writers and not engine.running


def test_bad_requests_are_errors(model):
    engine = Engine(TorchBackend(model, 1, 96))
    for ids, sampling, words in (
        ([1] * 96, {}, "96 tokens; the model's context is 96"),
        ([16], {}, "prompt: an id"),
        ([-1], {}, "prompt: an id"),
        ([1], {"logit_bias": {16: 1.0}}, "logit_bias: an id"),
        ([1], {"stop": ("a",)}, "tokenizer"),
    ):
        with pytest.raises(JaneoxError, match=words):
            engine.submit(ids, SamplingConfig(**sampling))
    assert engine.idle
    with pytest.raises(JaneoxError, match="seed"):
        SamplingConfig(seed=2**63)


def test_weights_that_are_no_numbers_are_an_error(model):
    broken = GPTNeoX(CONFIG).initialize(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        broken.embed_out.weight.fill_(float("nan"))
    engine = Engine(TorchBackend(broken, 1, 96))
    engine.submit([1], SamplingConfig())
    with pytest.raises(JaneoxError, match="weights are damaged"):
        engine.step()
    assert engine.idle
