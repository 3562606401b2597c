"""The form of a new run: made from a plan, read back to the same plan, and wrong by the name of the field."""

from dataclasses import fields, replace

import pytest

from app.views.training_form import KIND, entries, form, read_form, reasons_of, refit
from workbench.training.plan import Plan, TransformerShape, presets

PRESETS = presets()
MLP = PRESETS["bimt-independence/bimt"]
HEADS = PRESETS["induction-2l"]


def filled(plan, **changes):
    """What the browser sends for a plan, and what was typed over it."""
    found = {path: entry.text for path, entry in entries(plan, plan.network).items()}
    return found | {name.replace("__", "."): value for name, value in changes.items()}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_form_that_nobody_touched_means_its_preset(name):
    plan = PRESETS[name]
    assert read_form(filled(plan), plan) == (plan, {})


@pytest.mark.parametrize("plan", [MLP, HEADS], ids=lambda plan: plan.name)
def test_every_field_of_a_plan_has_one_control(plan):
    shown = [
        part.id["field"]
        for section in form(plan)
        for part in section._traverse()
        if isinstance(getattr(part, "id", None), dict) and part.id["type"] == "plan"
    ]
    own = [one.name for one in fields(plan) if one.name != "network"]
    network = [f"network.{one.name}" for one in fields(plan.network)]
    assert sorted(shown) == sorted([*own, *network, KIND])


def test_what_is_typed_is_what_is_planned():
    given = filled(
        MLP, steps="1,500", lr="1e-3", network__hidden="8 9,10", clip="", swap_inputs="no"
    )
    plan, errors = read_form(given, MLP)
    assert not errors
    assert plan == replace(
        MLP,
        steps=1500,
        lr=1e-3,
        clip=None,
        swap_inputs=False,
        network=replace(MLP.network, hidden=(8, 9, 10)),
    )


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("steps", "many"), ("steps", "1.5"), ("steps", ""), ("steps", "0"), ("steps", "9" * 400), ("lr", "nan"),
        ("lr", "-1"), ("lr", "x" * 500), ("name", ""), ("name", "a\nb"), ("task", "../../etc"), ("swaps", "no"),
        ("network.hidden", "20, many"), ("network.hidden", "0"), ("network.activation", "<b>"),
        ("head_lasso", "1"), ("snapshots", "1e9"), ("seed", "٣x"), ("clip", "inf"), ("folder", "\0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_beside_its_field(field, typed):
    plan, errors = read_form(filled(MLP) | {field: typed}, MLP)
    assert plan is None
    assert list(errors) == [field]
    assert errors[field]


def test_junk_of_any_kind_is_refused_not_raised():
    plan, errors = read_form({path: {"a": [1]} for path in filled(MLP)}, MLP)
    assert plan is None
    assert errors


def test_fields_that_do_not_apply_say_why():
    assert "no heads" in reasons_of(MLP)["head_lasso"]
    assert "lr" not in reasons_of(MLP)
    greyed = {
        part.id["field"]
        for section in form(MLP)
        for part in section._traverse()
        if getattr(part, "disabled", None) and isinstance(part.id, dict)
    }
    assert greyed == set(reasons_of(MLP))


def test_a_task_for_another_network_brings_the_form_of_that_network():
    assert refit(filled(MLP, task="two moons"), MLP, PRESETS) is None
    found = refit(filled(MLP, task="repeats"), MLP, PRESETS)
    assert found is not None
    assert isinstance(found.network, TransformerShape)
    assert found.task == "repeats"
    assert refit(filled(MLP, task="<b>"), MLP, PRESETS) is None
    # The form's own fields say which network is shown, whatever preset it began with.
    shown = filled(HEADS, steps="7")
    plan, errors = read_form(shown, MLP)
    assert (plan, errors) == (replace(HEADS, steps=7), {})


def test_a_plan_says_which_kinds_its_task_has():
    for plan in PRESETS.values():
        assert plan.network_kind in entries(plan, plan.network)[KIND].options
    assert isinstance(MLP, Plan)
