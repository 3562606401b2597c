"""SGD by its name: torch's own steps, a state that survives a kill, and old runs that never heard of it."""

import dataclasses
import json

import pytest
import torch
from torch.testing import assert_close

from workbench.errors import ConfigError
from workbench.training.config import TrainingConfig
from workbench.training.layouts import line_layout
from workbench.training.loop import fit
from workbench.training.making import made
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.optimizers import optimizers_for
from workbench.training.plan import MLPShape, Plan, PlanError, TransformerShape, fields_for
from workbench.training.regularizers.swaps import Swaps
from workbench.training.regularizers.wiring import WiringLength
from workbench.training.shaping import Shaping
from workbench.training.state import STATE_FILE
from workbench.training.tasks import formula_task

SHAPE, TASK = MLPConfig(widths=(4, 8, 8, 2)), formula_task("independence")
PLAIN = TrainingConfig(
    steps=12,
    lr=0.05,
    muon_lr=None,
    warmup=0.0,
    decay=0.0,
    clip=None,
    validate_every=2,
    save_every=5,
    bf16=False,
)
SGD = dataclasses.replace(PLAIN, optimizer="sgd")


class Killed(Exception):
    pass


def shaped(model):
    layout = line_layout(model)
    return Shaping(
        penalties={"wiring": WiringLength(layout=layout, strength=1e-3)},
        swaps=Swaps(layout=layout, every=3),
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("at", [2, 6, 10])
def test_a_killed_run_with_swaps_ends_with_the_same_bits(tmp_path, momentum, at):
    config = dataclasses.replace(SGD, momentum=momentum, weight_decay=0.1)

    def kill(seen):
        if seen.step == at:
            raise Killed

    whole = MLP(SHAPE)
    assert fit(whole, TASK, config, tmp_path / "whole", penalties=shaped(whole))
    cut = MLP(SHAPE)
    with pytest.raises(Killed):
        fit(cut, TASK, config, tmp_path / "cut", penalties=shaped(cut), progress=kill)
    assert (tmp_path / "cut" / STATE_FILE).is_file() == (at > 5)
    again = MLP(SHAPE)
    if at > 5:  # then everything is in the state
        with torch.no_grad():
            for weight in again.parameters():
                weight.fill_(7.0)
    assert fit(again, TASK, config, tmp_path / "cut", penalties=shaped(again))
    assert any((p != torch.arange(len(p))).any() for p in (again.in_perm, again.out_perm))
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_run_is_torchs_own_steps(tmp_path, name):
    """The oracle is a loop of five lines; the settings before there was a choice give AdamW's, to the bit."""
    config = dataclasses.replace(SGD, momentum=0.7, weight_decay=0.1) if name == "sgd" else PLAIN
    model, oracle = MLP(SHAPE), MLP(SHAPE)
    fit(model, TASK, config, tmp_path)
    if name == "sgd":
        theirs = torch.optim.SGD(oracle.parameters(), lr=0.05, momentum=0.7, weight_decay=0.1)
    else:
        theirs = torch.optim.AdamW(
            oracle.parameters(), lr=0.05, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
    for _ in range(12):
        theirs.zero_grad()
        TASK.train.loss(oracle(TASK.train.inputs)).backward()
        theirs.step()
    for key, weight in model.state_dict().items():
        if name == "adamw":
            assert torch.equal(weight, oracle.state_dict()[key]), key
        else:  # fused and plain SGD round unlike
            assert_close(weight, oracle.state_dict()[key])


def test_the_record_of_an_adamw_run_is_what_it_was_before_there_was_a_choice():
    """States saved then hold it, and must be resumed."""
    told = json.loads(PLAIN.fingerprint())
    assert set(told) == {
        *("steps", "seed", "lr", "muon_lr", "betas", "weight_decay", "warmup", "decay"),
        *("clip", "double_loss", "bf16"),
    }
    of_sgd = json.loads(SGD.fingerprint())
    assert of_sgd == told | {"optimizer": "sgd", "momentum": 0.9}
    other = dataclasses.replace(SGD, momentum=0.5)
    assert other.fingerprint() != SGD.fingerprint()


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "adam"}, {"momentum": 1.0}, {"momentum": float("nan")}]
)
def test_what_is_no_optimizer_is_refused(wrong, monkeypatch):
    with pytest.raises((ConfigError, TypeError)):
        dataclasses.replace(SGD, **wrong)
    name, value = next(iter(wrong.items()))
    with pytest.raises(PlanError) as refusal:
        Plan(name="p", task="two moons", network=MLPShape(), **{name: value})
    assert refusal.value.field == name


def test_muon_keeps_the_matrices_inside_layers_beside_sgd():
    plan = Plan(
        name="r",
        task="repeats",
        network=TransformerShape(n_ctx=16, d_model=8, n_heads=2),
        optimizer="sgd",
        momentum=0.5,
        muon_lr=0.02,
    )
    parts = made(plan)
    found = optimizers_for(parts.model, parts.config)
    assert set(found) == {"sgd", "muon"}
    assert isinstance(found["sgd"], torch.optim.SGD)
    assert found["sgd"].param_groups[0]["momentum"] == 0.5
    held = [p for o in found.values() for group in o.param_groups for p in group["params"]]
    assert len(held) == len(set(held)) and set(held) == set(parts.model.parameters())


def test_a_plan_says_which_optimizers_settings_apply():
    plan = Plan(name="m", task="two moons", network=MLPShape(hidden=(4,)))
    assert plan.optimizer == "adamw"
    assert fields_for(plan)["momentum"] and not fields_for(plan)["beta2"]
    sgd = dataclasses.replace(plan, optimizer="sgd")
    assert not fields_for(sgd)["momentum"] and fields_for(sgd)["beta2"]


def test_a_plan_written_before_these_fields_is_the_same_plan():
    plan = Plan(name="m", task="two moons", network=MLPShape(hidden=(4,)))
    written = json.loads(plan.to_json())
    for name in ("optimizer", "momentum", "parameter_decay", "strengths", "metric"):
        del written[name]
    assert Plan.from_json(json.dumps(written)) == plan
