"""Loss as a function of model size and training tokens, L(N, D) = E + A/N^a + B/D^b (Hoffmann et al. 2022, approach 3).

For given exponents the form is linear in E, A and B, so the fit is a search over a grid of (a, b) with least squares
in each point: exact, without a starting point that it could hang on. Errors are relative to the measured loss; E, A and
B are not negative. (The paper minimises a Huber loss of log L from many starting points; with a handful of rungs, none
of them an outlier, the two differ by less than the noise.)
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from janeox.errors import JaneoxError

EXPONENTS = np.arange(0.02, 1.201, 0.02)
RESAMPLINGS = 500


class Rung(NamedTuple):
    """One trained model."""

    parameters: float
    """N, without the input embedding, which is looked up and not multiplied with."""
    tokens: float
    """D, trained on."""
    loss: float
    """L, of the validation text, nats a token."""


@dataclass(frozen=True)
class Law:
    """E + A/N^a + B/D^b."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def __call__(self, parameters: float, tokens: float) -> float:
        return self.E + self.A / parameters**self.a + self.B / tokens**self.b

    def __str__(self) -> str:
        return f"L(N, D) = {self.E:.3f} + {self.A:.4g}/N^{self.a:.2f} + {self.B:.4g}/D^{self.b:.2f}"


def fit(rungs: Sequence[Rung]) -> Law:
    """The law nearest to the measured losses.

    Raises:
        JaneoxError: too few rungs, sizes or token counts to tell the five constants apart.
    """
    _check(rungs)
    return _fit(rungs, np.array([[rung.loss for rung in rungs]]))[0]


def bootstrap(rungs: Sequence[Rung], law: Law, seed: int = 0) -> list[Law]:
    """Laws of RESAMPLINGS sets of losses: the law's own, each with the relative error of a rung drawn at random.

    The errors are widened by √(n / (n − 5)), what five fitted constants took from them. So the spread shows how far the
    noise of the rungs reaches; whether the form holds far outside of them, no resampling can show.
    """
    fitted = np.array([law(rung.parameters, rung.tokens) for rung in rungs])
    errors = (np.array([rung.loss for rung in rungs]) / fitted - 1) * np.sqrt(len(rungs) / (len(rungs) - 5))
    drawn = np.random.default_rng(seed).choice(errors, (RESAMPLINGS, len(rungs)))
    return _fit(rungs, fitted * (1 + drawn))


def _check(rungs: Sequence[Rung]) -> None:
    for what, values in (("sizes", [r.parameters for r in rungs]), ("token counts", [r.tokens for r in rungs])):
        if len(set(values)) < 3:
            raise JaneoxError(f"the ladder has {len(set(values))} {what} to fit; it takes 3 to tell a power law")
    if len(rungs) < 7:
        raise JaneoxError(f"the ladder has {len(rungs)} rungs to fit; five constants take at least 7")


def _fit(rungs: Sequence[Rung], losses: np.ndarray) -> list[Law]:
    """One law for each row of losses (S, n)."""
    sizes, tokens = np.array([rung.parameters for rung in rungs]), np.array([rung.tokens for rung in rungs])
    grid = np.array(list(itertools.product(EXPONENTS, EXPONENTS)))  # (G, 2)
    terms = np.stack(np.broadcast_arrays(1.0, sizes ** -grid[:, :1], tokens ** -grid[:, 1:]), 2)  # (G, n, 3)
    scale = terms.max(1, keepdims=True)  # else the columns differ by orders of magnitude
    weights = 1 / np.mean(losses, 0)  # (n,): makes the errors relative
    weighted = terms / scale * weights[:, None]
    best = np.full(len(losses), np.inf)
    found = np.zeros((len(losses), 5))
    # Least squares under E, A, B >= 0: the best of the unconstrained solutions over each set of columns.
    for columns in ([0, 1, 2], [1, 2], [0, 2], [0, 1]):
        inverse = np.linalg.pinv(weighted[:, :, columns])  # (G, k, n)
        for row, loss in enumerate(losses):
            solution = inverse @ (loss * weights)  # (G, k)
            errors = np.square(np.einsum("gnk,gk->gn", weighted[:, :, columns], solution) - loss * weights).sum(1)
            errors[(solution < 0).any(1)] = np.inf
            at = int(errors.argmin())
            if errors[at] < best[row]:
                best[row] = errors[at]
                constants = np.zeros(3)
                constants[columns] = solution[at] / scale[at, 0, columns]
                found[row] = constants[0], constants[1], grid[at, 0], constants[2], grid[at, 1]
    return [Law(*map(float, row)) for row in found]
