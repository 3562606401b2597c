"""Every point of the curve is what cutting by hand measures, from nothing cut to everything."""

import numpy as np
import pytest
import torch

from tests.test_weights import randomised
from workbench.errors import ConfigError
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.modularity.pruning import prune
from workbench.training.modularity.pruning_curve import pruning_curve, task_loss
from workbench.training.tasks import Repeats, formula_task
from workbench.training.wires import groups, wires


def network():
    return MLP(MLPConfig(widths=(4, 10, 8, 2)))


def test_each_loss_is_that_of_a_network_cut_by_hand():
    model, task = network(), formula_task("independence")
    before = [p.detach().clone() for p in model.parameters()]
    curve = pruning_curve(model, task_loss(model, task))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for row in curve.table()[::6].itertuples():
        other, left = network(), 0
        with torch.no_grad():
            for layer in other.layers:
                layer.W[layer.W.abs() < row.threshold] = 0
                left += int(layer.W.count_nonzero())
        assert row.loss == pytest.approx(task.measure(other)["test_loss"])
        assert row.wires == left


def test_the_curve_runs_from_all_wires_to_none():
    model, task = network(), formula_task("independence")
    table = pruning_curve(model, task_loss(model, task)).table()
    n = sum(block.weight.numel() for block in wires(model))
    assert table["wires"].iloc[0] == n and table["wires"].iloc[-1] == 0
    assert table["threshold"].iloc[0] == 0 and (np.diff(table["threshold"]) > 0).all()
    for name in ("wires", "live_wires", "live_units"):
        assert (np.diff(table[name]) <= 0).all()
    assert (table["live_wires"] <= table["wires"]).all()
    assert table["components"].iloc[0] == 1 and table["components"].iloc[-1] == 0


def test_it_agrees_with_pruning_where_pruning_stops():
    model, task = network(), formula_task("independence")
    loss_of = task_loss(model, task)
    found = prune(wires(model), groups(model), loss_of, tolerance=0.2)
    curve = pruning_curve(model, loss_of, [0, found.threshold])
    last = curve.table().iloc[-1]
    assert last["loss"] == pytest.approx(found.loss)
    assert last["live_units"] == found.live.n_units
    assert last["components"] == found.live.n_components


def test_two_planted_halves_come_apart_at_their_joint():
    model = MLP(MLPConfig(widths=(2, 2, 2), bias=False))
    with torch.no_grad():
        for layer in model.layers:
            layer.W.copy_(torch.tensor([[1.0, 0.1], [0.2, 2.0]]))
    curve = pruning_curve(model, lambda masks: 0.0, [0, 0.15, 0.5, 1.5, 3])
    assert curve.n_components.tolist() == [1, 1, 2, 1, 0]
    assert curve.n_wires.tolist() == [8, 6, 4, 2, 0]


def test_a_threshold_is_found_among_those_measured():
    curve = pruning_curve(network(), lambda masks: 1.0, [0, 0.1, 0.2])
    assert [curve.at(x) for x in (0, 0.05, 0.1, 0.15, 0.2, 9.0)] == [0, 0, 1, 1, 2, 2]


def test_a_transformer_is_cut_too(build):
    model = randomised(build, {"order": "s"})
    task = Repeats(model.cfg.d_vocab, 12, 2, (2, 4))
    told = []
    curve = pruning_curve(
        model, task_loss(model, task), [0, 0.5, 1e9], progress=lambda *done: told.append(done)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert curve.loss[0] == pytest.approx(task.measure(model)["loss"])
    assert curve.n_wires[2] == 0 and np.isfinite(curve.loss).all()


def test_what_is_no_threshold_is_refused():
    for wrong, said in (([], "1 to 1000"), ([-1], "-1"), ([0, float("nan")], "nan")):
        with pytest.raises(ConfigError, match=said):
            pruning_curve(network(), lambda masks: 0.0, wrong)

    class Silent:
        def measure(self, model):
            return {"accuracy": 1.0}

    with pytest.raises(ConfigError, match="accuracy, and no loss"):
        task_loss(network(), Silent())({})
