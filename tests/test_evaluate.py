"""Perplexity against transformers' loss, for short texts, long texts and packed shards."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from janeox import LM, JaneoxError
from janeox.config import GPTNeoXConfig
from janeox.evaluate import score as evaluate
from janeox.evaluate.rival import TransformersScorer
from janeox.evaluate.score import Score, interval, score_shards, score_texts, unigram_entropy
from janeox.model import GPTNeoX
from test_data import make_shards
from test_model import theirs


@pytest.fixture(scope="module")
def pair(tokenizer, tmp_path_factory):
    """Our LM, and transformers' model of the same weights; the context is 64 tokens."""
    config = GPTNeoXConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    reference = theirs(config)
    folder = tmp_path_factory.mktemp("pair")
    reference.save_pretrained(folder)
    return LM(GPTNeoX.from_pretrained(folder), tokenizer), reference


def nll(reference, context, targets):
    """Σ −log p(targets | context so far), by transformers."""
    ids = torch.tensor([[*context, *targets]])
    with torch.no_grad():
        logits = reference(ids).logits[0, len(context) - 1 : -1]
    return F.cross_entropy(logits, torch.tensor(targets), reduction="sum").item()


def test_short_texts(pair, works):
    lm, reference = pair
    texts = [works[1][:20], works[2][:30], "猫"]
    encoded = [[*lm.tokenizer.encode(text), 3] for text in texts]
    expected = sum(nll(reference, [3], ids) for ids in encoded)
    score = lm.score(texts)
    assert score.nll == pytest.approx(expected, rel=1e-5)
    assert score.num_tokens == sum(map(len, encoded)) and score.num_bytes == sum(len(t.encode()) for t in texts)
    assert lm.perplexity(texts) == pytest.approx(math.exp(expected / score.num_tokens), rel=1e-5)
    assert lm.perplexity(texts[0]) == pytest.approx(lm.perplexity([texts[0]]))
    assert score.bits_per_byte == pytest.approx(expected / math.log(2) / score.num_bytes, rel=1e-5)


@pytest.mark.parametrize("stride", [None, 1, 20, 64])
def test_long_texts_are_read_in_windows_that_score_every_token_once(pair, works, stride):
    lm, reference = pair
    text = "".join(works[:3])[:250]
    ids = [3, *lm.tokenizer.encode(text), 3]
    assert len(ids) > 130
    step = stride or 32
    # The first window predicts 64 tokens; each later one ends `step` further and reads at most 64 tokens.
    expected, done = nll(reference, ids[:1], ids[1:65]), 64
    while done < len(ids) - 1:
        end = min(len(ids) - 1, done + step)
        expected += nll(reference, ids[max(0, end - 64) : done + 1], ids[done + 1 : end + 1])
        done = end
    score = lm.score([text], stride)
    assert score.nll == pytest.approx(expected, rel=1e-4) and score.num_tokens == len(ids) - 1


def test_a_score_does_not_hang_on_batches_or_order(pair, works, monkeypatch):
    lm, reference = pair
    texts = [works[number % 9][number : 9 * number + 1] for number in range(40)] + [works[1][:400], ""]
    alone = [lm.score(text) for text in texts]
    for batch_tokens, at_a_time in ((64, 512), (1000, 512), (100_000, 512), (100_000, 7)):
        monkeypatch.setattr(evaluate, "BATCH_TOKENS", batch_tokens)
        monkeypatch.setattr(evaluate, "TEXTS_AT_A_TIME", at_a_time)
        together = list(lm.scores(texts))
        for one, other in zip(alone, together, strict=True):
            assert other.nll == pytest.approx(one.nll, rel=1e-5)
            assert (other.num_tokens, other.num_bytes, other.num_chars) == (
                one.num_tokens,
                one.num_bytes,
                one.num_chars,
            )
        assert lm.perplexity(texts[::-1]) == pytest.approx(lm.perplexity(texts), rel=1e-6)
    assert alone[-1].num_tokens == 1 and alone[-1].nll == pytest.approx(nll(reference, [3], [3]), rel=1e-5)


def test_transformers_as_the_engine_scores_alike(pair, works, tmp_path):
    lm, _ = pair
    lm.model.save_pretrained(tmp_path / "m")
    lm.tokenizer.save(tmp_path / "m")
    rival = TransformersScorer(str(tmp_path / "m"), "cpu", "auto")
    for ours, theirs_ in zip(lm.scores(works[:4]), score_texts(rival, works[:4]), strict=True):
        assert theirs_.nll == pytest.approx(ours.nll, rel=1e-5) and theirs_.num_tokens == ours.num_tokens
    with pytest.raises(JaneoxError, match="transformers cannot open it"):
        TransformersScorer(str(tmp_path / "nowhere"), "cpu", "auto")


@pytest.mark.parametrize("stride", [0, 65, -1])
def test_a_stride_that_makes_no_sense(pair, stride):
    with pytest.raises(JaneoxError, match="between 1 and the context of 64"):
        pair[0].score("猫", stride)


def test_intervals_cover_the_truth_about_95_times_in_100():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        scores = [Score(float(value), 100, 300, 100) for value in random.normal(300, 60, 50)]
        low, high = interval(scores, lambda score: score.loss, seed=trial)
        assert low < sum(scores, Score()).loss < high
        covered += low <= 3.0 <= high
    assert 0.88 < covered / 100 < 0.99
    assert interval(scores, lambda score: score.loss, 1) == interval(scores, lambda score: score.loss, 1)
    assert interval(scores[:1], lambda score: score.loss) == (None, None)


def test_shards_are_scored_whole_by_source(pair, tmp_path):
    lm, reference = pair
    generator = torch.Generator().manual_seed(0)
    sources = {name: torch.randint(4, 2000, (n,), generator=generator).tolist() for name, n in (("a", 75), ("b", 9))}
    shards = make_shards(tmp_path, {f"valid/{name}": [ids] for name, ids in sources.items()} | {"c": [[5, 3]]}, 2000)
    scores = score_shards(lm.model, shards, sequence_length=32, rows=3)
    assert set(scores) == {"a", "b"}
    for name, ids in sources.items():
        stream = [3, *ids]
        expected = sum(
            nll(reference, stream[at : at + 1], stream[at + 1 : min(at + 33, len(stream))])
            for at in range(0, len(ids), 32)
        )
        assert scores[name].nll == pytest.approx(expected, rel=1e-5)
        assert (scores[name].num_tokens, scores[name].num_bytes) == (len(ids), 30)


def test_unigram_entropy(tmp_path):
    rows = [[4, 5, 5, 3], [6, 3]]
    counts = Counter(rows[0] + rows[1])
    expected = -sum(n / 6 * math.log(n / 6) for n in counts.values())
    assert unigram_entropy(make_shards(tmp_path, {"valid/a": rows, "a": [[9]]})) == pytest.approx(expected)


def test_empty_score():
    assert Score().loss == 0 and Score().bits_per_byte == 0
