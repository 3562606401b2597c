"""Formulas to be learned from points: which parts of them are computed apart?

    independence       ((x1 + x3)³, x2² + sin πx4)             two outputs that share no input
    feature-sharing    (x1², x1² + x2², x1² + x2² + x3²)       outputs that share squares
    compositionality   √((x1 − x2)² + (x3 − x4)²)              squares that are needed before the root

(Liu, Gan, Tegmark 2023, "Seeing is Believing".) Inputs are uniform over [−1, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from workbench.errors import ConfigError
from workbench.training.tasks.batches import Numbers
from workbench.training.tasks.fixed import FixedTask, check_rows

_N_TRIED = 20


@dataclass(frozen=True)
class Formula:
    """Numbers to numbers.

    Args:
        answer: `[row input]` → its outputs, one array each.
        sides: for each input and output, which part of the formula it belongs to; None = there are no parts
            that share nothing. What is not joined nevertheless, `apart` says.
    """

    n_inputs: int
    n_outputs: int
    answer: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    sides: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __call__(self, x: Float[np.ndarray, "row input"]) -> Float[np.ndarray, "row output"]:
        """The outputs of every row."""
        return np.stack(self.answer(x), axis=1)

    @property
    def apart(self) -> Bool[np.ndarray, "input output"]:
        """Which output does not depend on which input: it stays as it is when that input alone moves."""
        rng = np.random.default_rng(0)
        x = rng.uniform(-1, 1, (_N_TRIED, self.n_inputs))
        found = np.ones((self.n_inputs, self.n_outputs), dtype=bool)
        for entry in range(self.n_inputs):
            moved = x.copy()
            moved[:, entry] = rng.uniform(-1, 1, _N_TRIED)
            found[entry] = (self(moved) == self(x)).all(axis=0)
        return found


def _independence(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (x[:, 0] + x[:, 2]) ** 3, x[:, 1] ** 2 + np.sin(np.pi * x[:, 3])


def _feature_sharing(x: np.ndarray) -> tuple[np.ndarray, ...]:
    squares = np.cumsum(x**2, axis=1)
    return squares[:, 0], squares[:, 1], squares[:, 2]


def _compositionality(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (np.sqrt((x[:, 0] - x[:, 1]) ** 2 + (x[:, 2] - x[:, 3]) ** 2),)


FORMULAS = {
    "independence": Formula(4, 2, _independence, ((0, 1, 0, 1), (0, 1))),
    "feature-sharing": Formula(3, 3, _feature_sharing),
    "compositionality": Formula(4, 1, _compositionality),
}


def formula_task(name: str, *, n_train: int = 100, n_test: int = 100, seed: int = 0) -> FixedTask:
    """One of the formulas at random points.

    Raises:
        ConfigError: no formula of that name, or numbers that cannot be meant.
    """
    if name not in FORMULAS:
        raise ConfigError(f"no formula {name!r:.60}: there are {', '.join(FORMULAS)}")
    check_rows(n_train, n_test)
    formula = FORMULAS[name]
    rng = np.random.default_rng(seed)
    train, test = (_points(formula, n, rng) for n in (n_train, n_test))
    return FixedTask(name, train, test)


def _points(formula: Formula, n: int, rng: np.random.Generator) -> Numbers:
    x = rng.uniform(-1, 1, (n, formula.n_inputs))
    return Numbers(torch.from_numpy(x).float(), torch.from_numpy(formula(x)).float())
