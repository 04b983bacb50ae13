"""Packed documents, quantised weights and published definitions, each against transformers computing it another way."""

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.perplexity import independent
from benchmarks.rounded import rounded_model
from janeox import JaneoxError, load
from janeox.engine.native_backend import NativeBackend
from janeox.evaluate import score as evaluate
from janeox.evaluate.backend import BackendScorer
from janeox.evaluate.published import RINNA_BATCH, published
from janeox.evaluate.score import GPTNeoXScorer, Score, score_packed, score_texts
from test_evaluate import nll, pair  # noqa: F401
from tuning import write_model


def total(scores):
    return sum(scores, Score())


@pytest.mark.parametrize(("context", "stride"), [(None, 64), (None, 20), (24, 24), (24, 5)])
def test_packed_documents_are_one_stream(pair, works, context, stride):  # noqa: F811
    lm, reference = pair
    texts = [works[0][:60], works[1][:7], works[2][:90], works[3][:40]]
    stream = [3, *(id for text in texts for id in (*lm.tokenizer.encode(text), 3))]
    window = context or 64
    expected, done = nll(reference, stream[:1], stream[1 : window + 1]), window
    while done < len(stream) - 1:
        end = min(len(stream) - 1, done + stride)
        expected += nll(reference, stream[max(0, end - window) : done + 1], stream[done + 1 : end + 1])
        done = end
    scores = score_packed(GPTNeoXScorer(lm.model, lm.tokenizer), texts, stride, context)
    assert total(scores).nll == pytest.approx(expected, rel=1e-4)
    assert [score.num_tokens for score in scores] == [len(lm.tokenizer.encode(text)) + 1 for text in texts]
    assert score_packed(GPTNeoXScorer(lm.model, lm.tokenizer), []) == []


def test_float16_is_scored_by_the_kernels_on_a_cpu(tokenizer, works, tmp_path):
    write_model(tmp_path / "model", tokenizer)
    scores = []
    for dtype, kind in (("float32", GPTNeoXScorer), ("float16", BackendScorer)):
        lm = load(tmp_path / "model", device="cpu", dtype=dtype)
        assert type(lm.scorer()) is kind
        scores.append(lm.score(works[0][:200]).loss)
    assert scores[1] != scores[0] and scores[1] == pytest.approx(scores[0], rel=1e-3)


def test_a_shorter_context_is_what_a_token_sees(pair, works):  # noqa: F811
    lm, reference = pair
    ids = [3, *lm.tokenizer.encode(works[0][:40]), 3]
    expected = sum(nll(reference, ids[max(0, at - 7) : at], ids[at : at + 1]) for at in range(1, len(ids)))
    scorer = GPTNeoXScorer(lm.model, lm.tokenizer)
    assert total(score_texts(scorer, [works[0][:40]], stride=1, context=7)).nll == pytest.approx(expected, rel=1e-4)
    for context in (0, 65):
        with pytest.raises(JaneoxError, match=f"context = {context}: must lie between 1 and the model's 64"):
            list(score_texts(scorer, ["猫"], context=context))
    with pytest.raises(JaneoxError, match="between 1 and the context of 7"):
        list(score_texts(scorer, ["猫"], stride=8, context=7))


def test_published_definitions(pair, works):  # noqa: F811
    lm, reference = pair
    texts = [works[number % 9][number : 4 * number + 3] for number in range(RINNA_BATCH + 5)]
    encoded = [lm.tokenizer.encode(text) for text in texts]
    batches = []
    for first in range(0, len(texts), RINNA_BATCH):
        # That program cuts a document, with <s> before it, to the tokens that the model reads.
        parts = [[2, *ids, 3][:65] for ids in encoded[first : first + RINNA_BATCH]]
        losses = sum(nll(reference, ids[:1], ids[1:]) for ids in parts)
        batches.append(math.exp(losses / sum(len(ids) - 1 for ids in parts)))
    figures = published(GPTNeoXScorer(lm.model, lm.tokenizer), texts)
    assert figures.rinna == pytest.approx(sum(batches) / 2, rel=1e-4)
    stream = [3, *(id for ids in encoded for id in (*ids, 3))]
    whole = (len(stream) - 1) // 64 * 64
    windows = torch.tensor([stream[at : at + 65] for at in range(0, whole, 64)])
    with torch.no_grad():
        logits = reference(windows[:, :-1]).logits
    sum_whole = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="sum").item()
    rest = nll(reference, stream[-65:-1][: 64 - (len(stream) - 1 - whole) + 1], stream[whole + 1 :])
    tokens, chars = len(stream) - 1, sum(map(len, texts))
    assert figures.gpt_neox == pytest.approx(math.exp((sum_whole + rest) / tokens), rel=1e-4)
    assert figures.gpt_neox_char == pytest.approx(math.exp((sum_whole + rest) / chars), rel=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("stride", [32, 64])
def test_quantised_scores_are_those_of_transformers_with_rounded_numbers(pair, works, bits, stride):  # noqa: F811
    """An independent model of what the kernels compute: see benchmarks/rounded.py. A number that lies between two steps
    may be rounded either way, which moves a text by 1e-5; the texts without one agree far better than that."""
    lm, reference = pair
    texts = [works[0][:150], works[1][:20], works[2][:80]]
    scorer = BackendScorer(NativeBackend.from_model(lm.model, num_slots=3, capacity=64, bits=bits), lm.tokenizer)
    rounded, off, without = rounded_model(reference, bits), [], []
    for text, score, exact in zip(texts, score_texts(scorer, texts, stride), lm.scores(texts, stride), strict=True):
        ids = [*lm.tokenizer.encode(text), 3]
        expected, tokens = independent(rounded, [ids], 3, context=64, stride=stride)
        assert score.num_tokens == tokens
        off.append(abs(score.nll / expected - 1))
        without.append(abs(exact.nll / expected - 1))
    assert max(off) < 1e-4 and min(off) < 1e-7 and min(without) > 1e-6


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_a_backend_scores_the_same_in_any_batch_and_order(pair, works, bits, monkeypatch):  # noqa: F811
    lm, _ = pair
    texts = [works[number % 9][number : 9 * number + 1] for number in range(12)] + [works[1][:200], ""]
    scorer = BackendScorer(NativeBackend.from_model(lm.model, num_slots=4, capacity=64, bits=bits), lm.tokenizer)
    together = list(score_texts(scorer, texts))
    monkeypatch.setattr(evaluate, "BATCH_TOKENS", 100)
    assert [next(score_texts(scorer, [text])) for text in texts] == together
    assert list(score_texts(scorer, texts[::-1])) == together[::-1]
    if bits == 32:
        assert total(together).nll == pytest.approx(lm.score(texts).nll, rel=1e-6)
