"""Schedules and decays that are written as text: read exactly, or refused by the part that is wrong."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from workbench.training.making import made
from workbench.training.plan import MLPShape, Plan, PlanError, fields_for
from workbench.training.plan_texts import Rate, points, rates
from workbench.training.regularizers.decay import distance_rates
from workbench.training.wires import wires

MOONS = Plan(name="m", task="two moons", network=MLPShape(hidden=(9, 4)), steps=100)
JUMPS = dataclasses.replace(
    MOONS, wiring=0.01, schedule="piecewise", strengths="0:0.001, 0.25 : 1e-2,0.75:0"
)


def test_a_schedule_is_read():
    assert points("0:0.001, 0.25:0.01", "f", 1.0) == ((0, 0.001), (0.25, 0.01))
    assert points(" 0 : 1 ", "f", 1.0) == ((0, 1),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not"),
        ("0.001", "'0.001' is not"),
        ("0:0.001,", "'' is not"),
        ("0:0.001; 0.25:0.01", "'0.001; 0.25:0.01' is none"),
        ("0:", "'0:' is not"),
        ("0:nan", "'nan' is none"),
        ("nan:1", "'nan' is none"),
        ("0:-1", "'-1' is none"),
        ("0:inf", "'inf' is none"),
        ("0:1e7", "from 0 to 1e\\+06: '1e7'"),
        ("0:strong", "'strong' is none"),
        ("0.5:1", "rise from 0 to below 1, not 0.5"),
        ("0:1, 1:2", "rise from 0 to below 1, not 0, 1"),
        ("0:1, 0.5:2, 0.5:3", "rise from 0"),
        ("0:1, 0.5:2, 0.2:3", "rise from 0"),
        ("-0.5:1", "'-0.5' is none"),
        (",".join(f"{n / 100}:1" for n in range(90)), "at most 64 parts, not 90"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused_by_the_part_that_is_wrong(text, message):
    with pytest.raises(PlanError, match=message) as refusal:
        points(text, "strengths", 1e6)
    assert refusal.value.field == "strengths" and len(str(refusal.value)) < 200


def test_the_strength_jumps_where_the_plan_says():
    """The penalty of the same weights, over the run, is that of each strength alone."""
    parts = made(JUMPS)
    for step, strength in ((0, 0.001), (24, 0.001), (25, 0.01), (74, 0.01), (75, 0.0), (99, 0.0)):
        found = parts.shaping.penalties["wiring"](parts.model, step).item()
        expected = 0.0
        if strength:
            alone = made(dataclasses.replace(MOONS, wiring=strength))
            expected = alone.shaping.penalties["wiring"](alone.model, step).item()
        assert found == pytest.approx(expected)
    # It changes what resumes with what.
    assert parts.shaping.fingerprint() != (
        made(dataclasses.replace(MOONS, wiring=0.01)).shaping.fingerprint()
    )


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"strengths": None}, "strengths", "is missing"),
        ({"strengths": "0:-1"}, "strengths", "'-1' is none"),
        ({"strengths": "0:nan"}, "strengths", "'nan' is none"),
        ({"wiring": 0.5}, "wiring", "must be 0.01, the largest of the strengths, not 0.5"),
        ({"schedule": "constant", "strengths": "x"}, "strengths", "'x' is not"),
        ({"parameter_decay": "*.b"}, "parameter_decay", "is not"),
        ({"parameter_decay": "*.b: -1"}, "parameter_decay", "'-1' is none"),
        ({"parameter_decay": "*.b: 0, *.b: 1"}, "parameter_decay", "once only"),
        ({"metric": "taxi"}, "metric", "one of manhattan, euclidean"),
    ],
)
def test_a_plan_is_refused_by_the_field_that_is_to_be_changed(values, field, message):
    with pytest.raises(PlanError, match=message) as refusal:
        dataclasses.replace(JUMPS, **values)
    assert refusal.value.field == field


def test_what_the_new_fields_apply_to():
    why = fields_for(MOONS)
    assert "lines" not in why["parameter_decay"] and not why["parameter_decay"]
    assert "on a line" in why["metric"] and why["strengths"]
    assert not fields_for(JUMPS)["strengths"] and not fields_for(JUMPS)["schedule"]
    assert not fields_for(dataclasses.replace(MOONS, places="squares"))["metric"]


def test_a_straight_distance_is_shorter_than_one_along_rows_and_columns():
    """Of the same places: √(Δx² + Δy²) against |Δx| + |Δy|."""
    found = {}
    for metric in ("manhattan", "euclidean"):
        plan = dataclasses.replace(MOONS, wiring=1e-3, places="squares", metric=metric)
        parts = made(plan)
        block = wires(parts.model)[1]
        source, target = parts.layout.places[block.source], parts.layout.places[block.target]
        apart = source[:, None] - target[None]
        power = 1 if metric == "manhattan" else 2
        assert_close(parts.layout.distances(block), apart.abs().pow(power).sum(-1).pow(1 / power))
        found[metric] = parts.shaping.penalties["wiring"](parts.model, 0).item()
    assert found["euclidean"] < found["manhattan"]


def test_decays_are_read():
    assert rates("*.b: 0, layers.*.W: 0.1 length", "f", 1.0) == {
        "*.b": Rate(0.0),
        "layers.*.W": Rate(0.1, by_length=True),
    }


def test_every_parameter_decays_at_the_first_rate_that_fits_it(tmp_path):
    """Without a gradient, w ← (1 − lr·rate)·w; the decay is decoupled."""
    text = "layers.0.*: 0, layers.1.W: 2 length, *.W: 1"
    parts = made(dataclasses.replace(MOONS, parameter_decay=text))
    decay, model = parts.shaping.decay, parts.model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    decay.shrink(model, 0, 0.1)
    after = model.state_dict()
    lengths = distance_rates(model, parts.layout)
    assert torch.equal(after["layers.0.W"], before["layers.0.W"])
    assert torch.equal(after["layers.2.b"], before["layers.2.b"])
    assert_close(after["layers.2.W"], 0.9 * before["layers.2.W"])
    factor = (1 - 0.1 * 2 * lengths["layers.1.W"]).float()
    assert_close(after["layers.1.W"], factor * before["layers.1.W"])
    assert made(MOONS).shaping.decay is None
    # It acts in a run, beside all else.
    from workbench.training.loop import fit

    strong = dataclasses.replace(MOONS, steps=10, lr=0.1, parameter_decay="layers.1.W: 5")
    parts = made(strong)
    size = parts.model.layers[1].W.norm().item()
    fit(parts.model, parts.task, parts.config, tmp_path, penalties=parts.shaping)
    assert parts.model.layers[1].W.norm().item() < 0.5 * size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers.7.W: 1", r"names 'layers\.7\.W': there are layers\.0\.W"),
        ("*.b: 1 length", r"cannot give layers\.0\.b a length"),
    ],
)
def test_a_decay_of_what_the_network_lacks_is_blamed_on_its_field(text, message):
    with pytest.raises(PlanError, match=message) as refusal:
        made(dataclasses.replace(MOONS, parameter_decay=text))
    assert refusal.value.field == "parameter_decay"
