"""Tasks whose examples can be listed: some are trained on, the others measure generalisation."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.errors import ConfigError
from workbench.training.tasks.batches import Labelled, Numbers

MAX_ROWS = 1_000_000


@dataclass(frozen=True, eq=False)
class FixedTask:
    """All training examples in every step, or some, drawn anew.

    Args:
        n_rows: of a batch, drawn without repetition; None = all.

    Raises:
        ConfigError: no examples, or a batch that is larger than all of them.
    """

    name: str
    train: Labelled | Numbers
    test: Labelled | Numbers
    n_rows: int | None = None

    def __post_init__(self) -> None:
        n_train, n_test = len(self.train.inputs), len(self.test.inputs)
        if not n_train or not n_test:
            raise ConfigError(f"{self.name} has {n_train} training and {n_test} test examples")
        if self.n_rows is not None and not 1 <= self.n_rows <= n_train:
            raise ConfigError(f"a batch of {self.name} has 1 to {n_train} rows, not {self.n_rows}")

    def batch(self, seed: int, step: int) -> Labelled | Numbers:
        """Training examples of one step."""
        if self.n_rows is None:
            return self.train
        rng = np.random.default_rng((seed, step))
        drawn = rng.choice(len(self.train.inputs), self.n_rows, replace=False)
        return self.train.rows(torch.from_numpy(drawn))

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """Loss, and accuracy or R², on all training and all test examples."""
        measured = {}
        for part, examples in (("train", self.train), ("test", self.test)):
            outputs = examples.outputs(model)
            measured[f"{part}_loss"] = float(examples.loss(outputs))
            measured |= {f"{part}_{name}": x for name, x in examples.scores(outputs).items()}
        return measured


def check_rows(n_train: int, n_test: int) -> None:
    """Refuse numbers of examples that cannot be meant.

    Raises:
        ConfigError: says which.
    """
    for name, n in (("training", n_train), ("test", n_test)):
        if not 1 <= n <= MAX_ROWS:
            raise ConfigError(f"there can be 1 to {MAX_ROWS:,} {name} examples, not {n}")


def two_moons(
    *, n_train: int = 200, n_test: int = 200, noise: float = 0.1, seed: int = 1
) -> FixedTask:
    """Two half circles that reach into each other, told apart by two logits.

    Args:
        noise: standard deviation of what is added to both coordinates.

    Raises:
        ConfigError: numbers that cannot be meant.
    """
    check_rows(n_train, n_test)
    if not 0 <= noise < math.inf:
        raise ConfigError(f"noise must be a finite number from 0 up, not {noise!r}")
    train, test = (_moons(n, noise, (seed, part)) for part, n in enumerate((n_train, n_test)))
    return FixedTask("two moons", train, test)


def _moons(n: int, noise: float, seed: tuple[int, int]) -> Labelled:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    angle = np.linspace(0, np.pi, n)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.where(labels[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)
    points += rng.normal(0, noise, points.shape)
    order = rng.permutation(n)
    return Labelled(torch.from_numpy(points[order]).float(), torch.from_numpy(labels[order]))
