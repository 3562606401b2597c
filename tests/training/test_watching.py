"""Probes during training: they say what slow ways of counting say, and change nothing of the run."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from workbench.errors import ConfigError
from workbench.training.layouts import line_layout
from workbench.training.loop import fit, read_metrics
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
    thickest,
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
    name = "Q of the thickest 100,000 wires"
    assert set(default_probes(MOONS, wide)) == {
        *(name, f"{name} rewired mean", f"{name} z", "wiring length", "mean wire length")
    }
    just = MLP(MLPConfig(widths=(2, MAX_WIRES // 4, 2)))
    assert "Q" in default_probes(MOONS, just)


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


# --- Networks too large to be searched whole -------------------------------------------------------


def test_the_thickest_wires_are_those_of_a_sorted_list():
    model = MLP(MLPConfig(widths=(5, 7, 3)))
    seen = wires(model)
    every = sorted(
        (abs(w) for block in seen for w in block.weight.flatten().tolist()), reverse=True
    )
    for n in (1, 10, 55, 56, 1000):
        kept = thickest(seen, n)
        left = [abs(w) for block in kept for w in block.weight.flatten().tolist() if w]
        assert sorted(left, reverse=True) == every[:n]
        assert [block.name for block in kept] == [block.name for block in seen]


def test_modules_of_the_thickest_wires_are_found_under_thin_ones(two_blocks):
    """Thin wires between the halves are left out: what is left are two networks, whose Q is 1/2."""
    with torch.no_grad():
        for layer in two_blocks.layers:
            layer.W += 0.3 * (layer.W == 0)
    assert Modules(3)(two_blocks).value < 0.3
    score = Modules(3, 16)(two_blocks)
    assert score.value == pytest.approx(0.5)
    assert len(score.null) == 3


def test_the_null_of_the_thickest_wires_has_as_many_at_every_unit(two_blocks, monkeypatch):
    from workbench.training import watching

    seen = []
    real = watching.rewired

    def noted(blocks, rng):
        found = real(blocks, rng)
        seen.append((blocks, found))
        return found

    monkeypatch.setattr(watching, "rewired", noted)
    Modules(2, 16)(two_blocks)
    assert len(seen) == 2
    for blocks, found in seen:
        for one, other in zip(blocks, found, strict=True):
            for axis in (0, 1):
                before, after = ((b.size > 0).sum(axis) for b in (one, other))
                assert (before == after).all()


def test_a_language_model_has_its_modularity_measured(monkeypatch, tmp_path):
    """As small-text has, with a smaller limit: in the journal, by its own name, without changing the run."""
    monkeypatch.setattr("workbench.training.watching.MAX_WIRES", 500)
    parts = made(REPEATS)
    probes = default_probes(REPEATS, parts.model)
    fit(parts.model, Watched(parts.task, probes), parts.config, tmp_path)
    last = read_metrics(tmp_path)[-1]
    name = "Q of the thickest 500 wires"
    assert 0 < last[name] < 1 and math.isfinite(last[f"{name} z"])
    assert 0 < last[f"{name} rewired mean"] < 1 and "Q" not in last
    alone = made(REPEATS)
    fit(alone.model, alone.task, alone.config, tmp_path / "alone")
    weights = zip(parts.model.parameters(), alone.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
