"""The scaling law: recovered where it holds, refused where it cannot be told."""

import numpy as np
import pytest

from janeox import JaneoxError
from janeox.config import GPTNeoXConfig
from janeox.evaluate import scaling
from janeox.evaluate.ladder import count_parameters
from janeox.evaluate.scaling import Law, Rung, bootstrap, fit
from test_model import theirs

CHINCHILLA = Law(1.69, 406.4, 0.34, 410.7, 0.28)
GRID = [(size, tokens) for size in (4e5, 1e6, 2e6, 6e6) for tokens in (5e5, 1e6, 4e6)]


def rungs(law, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    return [Rung(n, d, law(n, d) * (1 + noise * random.standard_normal())) for n, d in GRID]


@pytest.mark.parametrize("law", [CHINCHILLA, Law(0.5, 30, 0.2, 900, 0.4), Law(0.0, 100, 0.3, 300, 0.3)])
def test_a_law_without_noise_is_found(law):
    found = fit(rungs(law))
    for n, d in [*GRID, (1e9, 1e10)]:
        assert found(n, d) == pytest.approx(law(n, d), rel=1e-6)
    assert (found.a, found.b) == (pytest.approx(law.a), pytest.approx(law.b))


def test_the_interval_covers_the_truth_nearby_and_widens_far_away(monkeypatch):
    monkeypatch.setattr(scaling, "RESAMPLINGS", 100)
    covered, widths = 0, []
    for seed in range(8):
        measured = rungs(CHINCHILLA, 0.003, seed)
        laws = bootstrap(measured, fit(measured), seed)
        low, high = np.percentile([law(1.2e7, 8e6) for law in laws], (2.5, 97.5))
        covered += low <= CHINCHILLA(1.2e7, 8e6) <= high
        far = np.percentile([law(3.5e9, 3e11) for law in laws], (2.5, 97.5))
        widths.append((high - low, far[1] - far[0]))
    assert covered >= 6
    assert all(far > 3 * near for near, far in widths)


def test_too_few_rungs():
    with pytest.raises(JaneoxError, match="1 sizes to fit"):
        fit([Rung(1e6, d, 5) for d in range(1, 9)])
    with pytest.raises(JaneoxError, match="2 token counts"):
        fit([Rung(n, d, 5) for n in range(1, 5) for d in (1, 2)])
    with pytest.raises(JaneoxError, match="3 rungs to fit; five constants take at least 7"):
        fit([Rung(n, n, 5) for n in (1, 2, 3)])


def test_parameters_are_those_of_transformers_without_the_embedding():
    config = GPTNeoXConfig(500, 32, 2, 2, 64, max_position_embeddings=64)
    reference = theirs(config)
    assert count_parameters(config) == reference.num_parameters() - reference.get_input_embeddings().weight.numel()
    assert count_parameters(GPTNeoXConfig()) == 3_607_245_312 - 32000 * 2816  # the published total
