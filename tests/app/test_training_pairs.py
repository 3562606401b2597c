"""Two runs at equal loss, against the obvious search over all snapshots."""

import numpy as np
import pandas as pd
import pytest

from app.training_pairs import equal_loss, snapshot_losses
from workbench.errors import UnsupportedError


def curve(losses, every=10, name="test_loss"):
    steps = every * (1 + np.arange(len(losses)))
    return pd.DataFrame({"step": steps, "train_loss": 0.0, name: losses})


def test_both_are_taken_at_the_lowest_loss_that_both_have_reached():
    fast, slow = curve([1.0, 0.1, 0.01]), curve([2.0, 0.9, 0.4], name="loss")
    pair = equal_loss((fast, (10, 20, 30)), (slow, (10, 20, 30)))
    assert pair.level == pair.lowest == 0.4
    assert (pair.first.step, pair.first.loss) == (20, 0.1)
    assert (pair.second.step, pair.second.loss) == (30, 0.4)
    assert pair.highest == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_the_snapshots_are_the_nearest_of_all(seed):
    rng = np.random.default_rng(seed)
    first, second = (curve(np.sort(rng.exponential(size=12))[::-1]) for _ in range(2))
    steps = [
        tuple(int(10 * k) for k in sorted(rng.choice(np.arange(1, 13), 5, replace=False)))
        for _ in range(2)
    ]
    level = float(rng.exponential())
    pair = equal_loss((first, steps[0]), (second, steps[1]), level)
    for found, table, kept in zip((pair.first, pair.second), (first, second), steps, strict=True):
        losses = dict(zip(table["step"], table["test_loss"], strict=True))
        assert abs(found.loss - level) == min(abs(losses[step] - level) for step in kept)
        assert found.loss == losses[found.step]


def test_the_untrained_network_has_no_loss_of_the_first_validation():
    found = snapshot_losses(curve([1.0, 0.5]), (0, 10, 20))
    assert [match.step for match in found] == [10, 20]


def test_a_snapshot_between_two_validations_says_where_its_loss_was_measured():
    (found,) = snapshot_losses(curve([1.0, 0.5, 0.2], every=100), (210,))
    assert (found.loss, found.measured_at) == (0.5, 200)


@pytest.mark.parametrize(
    ("table", "steps"),
    [
        (curve([]), (10,)), (curve([1.0]), ()), (curve([1.0], name="else"), (10,)),
        (curve([float("nan")]), (10,)),
    ],
)  # fmt: skip
def test_a_run_without_a_measured_snapshot_cannot_be_compared(table, steps):
    with pytest.raises(UnsupportedError, match="the other run has no snapshot"):
        equal_loss((curve([1.0]), (10,)), (table, steps))
