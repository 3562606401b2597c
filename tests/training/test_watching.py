"""Probes during training: they say what slow ways of counting say, and change nothing of the run."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from workbench.errors import ConfigError
from workbench.training.layouts import line_layout
from workbench.training.loop import fit
from workbench.training.making import made
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.plan import MLPShape, Plan, TransformerShape
from workbench.training.watching import (
    MAX_WIRES,
    Modules,
    Watched,
    composition_excess,
    default_probes,
    induction_score,
)
from workbench.training.wires import wires

MOONS = Plan(
    name="m",
    task="two moons",
    network=MLPShape(hidden=(6,)),
    steps=6,
    nested_dropout=0.1,
    snapshots=0,
)
REPEATS = Plan(
    name="r",
    task="repeats",
    network=TransformerShape(n_ctx=16, d_model=8, n_heads=2),
    steps=2,
    batch_rows=4,
    snapshots=0,
)


@pytest.fixture
def two_blocks():
    """A network that is two networks: Q of the two halves is ½ where both weigh the same."""
    model = MLP(MLPConfig(widths=(4, 4, 4)))
    with torch.no_grad():
        for layer in model.layers:
            layer.W.zero_()
            layer.W[:2, :2] = 1.0
            layer.W[2:, 2:] = -1.0
    return model


def test_two_separate_networks_have_the_q_of_two_modules(two_blocks):
    score = Modules(4)(two_blocks)
    assert score.value == pytest.approx(0.5)
    assert len(score.null) == 4 and score.mean < 0.5
    assert score.z == pytest.approx((score.value - score.mean) / np.std(score.null, ddof=1))


def test_the_same_weights_are_searched_once_and_other_weights_anew(two_blocks, monkeypatch):
    modules, searched = Modules(2), []
    search = Modules._search
    monkeypatch.setattr(Modules, "_search", lambda self, m: searched.append(1) or search(self, m))
    first = modules(two_blocks)
    assert modules(two_blocks) is first
    with torch.no_grad():
        two_blocks.layers[0].W[0, 3] = 5.0
    assert modules(two_blocks).value != first.value
    assert len(searched) == 2


def test_lengths_are_those_of_every_wire_added_up(two_blocks):
    probes = default_probes(MOONS, two_blocks)
    places = line_layout(two_blocks).places
    total = weight = 0.0
    for block in wires(two_blocks):
        for i, row in enumerate(block.weight.tolist()):
            for j, w in enumerate(row):
                distance = float(places[block.source][i, 0] - places[block.target][j, 0])
                total += abs(w) * abs(distance)
                weight += abs(w)
    assert probes["wiring length"](two_blocks) == pytest.approx(total)
    assert probes["mean wire length"](two_blocks) == pytest.approx(total / weight)


def test_a_network_without_weights_has_numbers_that_say_nothing(two_blocks):
    with torch.no_grad():
        for layer in two_blocks.layers:
            layer.W.zero_()
    measured = Watched(made(MOONS).task, {}).measure(made(MOONS).model)
    assert all(map(math.isfinite, measured.values()))
    found = {name: probe(two_blocks) for name, probe in default_probes(MOONS, two_blocks).items()}
    assert found.pop("wiring length") == 0
    assert all(map(math.isnan, found.values())), found


def test_the_bundled_induction_heads_are_seen(attn_2l):
    assert induction_score(attn_2l) > 0.5
    assert composition_excess(attn_2l) > 0.05


def test_probes_are_those_that_fit_the_network():
    assert set(default_probes(MOONS, made(MOONS).model)) == {
        *("Q", "Q shuffled mean", "Q z", "wiring length", "mean wire length")
    }
    both = {"induction score", "K-composition excess"}
    assert both <= set(default_probes(REPEATS, made(REPEATS).model))
    one = dataclasses.replace(REPEATS, network=TransformerShape(order="s", n_ctx=16, d_model=8))
    assert both & set(default_probes(one, made(one).model)) == {"induction score"}
    short = Plan(name="a", task="modular addition", network=TransformerShape(d_model=8), modulus=5)
    assert not both & {*default_probes(short, made(short).model)} - {"K-composition excess"}
    wide = MLP(MLPConfig(widths=(2, MAX_WIRES // 2, 2)))
    assert set(default_probes(MOONS, wide)) == {"wiring length", "mean wire length"}


@pytest.mark.parametrize("plan", [MOONS, REPEATS])
def test_a_watched_run_ends_with_the_bits_of_one_that_nobody_watched(tmp_path, plan):
    ends = []
    for name in ("watched", "alone"):
        parts = made(plan)
        probes = default_probes(plan, parts.model) if name == "watched" else {}
        torch.manual_seed(3)
        fit(
            parts.model,
            Watched(parts.task, probes),
            parts.config,
            tmp_path / name,
            penalties=parts.shaping,
        )
        ends.append((parts.model.state_dict(), torch.rand(1)))
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])
    assert torch.equal(ends[0][1], ends[1][1])


def test_a_probe_does_not_hide_a_number_of_the_task():
    parts = made(MOONS)
    watched = Watched(parts.task, {"test_loss": lambda model: 0.0})
    with pytest.raises(ConfigError, match="measures 'test_loss' itself"):
        watched.measure(parts.model)
