"""The study of wiring in transformers: its numbers are those kept, conditions and measures what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from studies.findings import read_findings, read_numbers
from studies.modular_transformers import numbers
from studies.modular_transformers.equal import at_loss, equal_table
from studies.modular_transformers.measures import (
    NEEDED,
    costs_of_heads,
    legibility,
    model_tables,
    participation,
    sparsity_of,
    top_share,
    wiring_of,
)
from studies.modular_transformers.study import HERE, MIDDLE, Config, Findings, kept_folder, trials
from studies.modular_transformers.training import (
    CONDITIONS,
    GAP,
    Trial,
    make_model,
    make_shaping,
    make_task,
    train,
)
from workbench import load
from workbench.errors import ConfigError
from workbench.sites import Head
from workbench.training.regularizers.l1 import L1
from workbench.weights import effective_weights

SHORT = Trial(data="repeats", condition="swaps", strength=0.5, steps=20)


@pytest.fixture(scope="module")
def kept() -> Findings:
    return read_findings(Findings, HERE / "results")


@pytest.fixture(scope="module")
def task():
    return make_task("repeats")


@pytest.fixture(scope="module", params=["none", "swaps"])
def kept_model(request):
    return request.param, load(str(kept_folder(request.param)))


def test_the_readme_quotes_the_kept_numbers(kept):
    assert read_numbers(HERE / "README.md") == numbers.blocks(kept)


def test_every_claim_holds(kept):
    assert kept.holds and all(kept.holds.values()), kept.holds


def test_every_trial_was_measured(kept):
    names = ["data", "condition", "strength", "seed"]
    final = kept.models[kept.models["is_final"]]
    found = set(final[names].itertuples(index=False, name=None))
    asked = {(t.data, t.condition, t.strength, t.seed) for t in trials(Config())}
    assert found == asked and len(final) == len(asked)


def test_a_fresh_run_finds_the_kept_numbers(kept, kept_model, task):
    condition, model = kept_model
    config = Config()
    found, heads, pairs = model_tables(model, task, config.seed, config.n_shuffles)
    is_it = "data == 'repeats' and condition == @condition and seed == 0 and strength == @strength"
    strength = MIDDLE[condition]  # noqa: F841  # read by the query
    row = kept.models.query(is_it + " and is_final").iloc[0]
    for name, value in found.items():
        assert value == pytest.approx(row[name], rel=3e-3, abs=2e-3), name
    for table, own in ((heads, kept.heads), (pairs, kept.pairs)):
        old = own.query(is_it).reset_index(drop=True)
        for column in table.select_dtypes("number"):
            np.testing.assert_allclose(
                table[column], old[column].astype(float), rtol=5e-3, atol=5e-3
            )


def test_conditions_start_alike_and_differ_in_the_penalty_alone():
    given = {
        name: Trial(data="repeats", condition=name, strength=MIDDLE[name], steps=100)
        for name in CONDITIONS
    }
    models = {name: make_model(trial) for name, trial in given.items()}
    for model in models.values():
        assert_close(model.state_dict(), models["none"].state_dict())
    shapings = {name: make_shaping(given[name], models[name]) for name in CONDITIONS}
    assert not shapings["none"].penalties and shapings["none"].swaps is None
    assert [name for name in CONDITIONS if shapings[name].swaps] == ["swaps"]
    late, early = (
        float(shapings["l1"].penalties["wiring"](models["l1"], step).detach()) for step in (60, 10)
    )
    sizes = L1(strength=1.0, reduction="mean", bias=True).value(models["l1"]).item()
    assert late == pytest.approx(MIDDLE["l1"] * GAP * sizes, rel=1e-5)
    assert early == pytest.approx(late / 10, rel=1e-5)
    wired = shapings["local"].penalties["wiring"](models["local"], 60).item()
    assert wired > MIDDLE["local"] * GAP * sizes


def test_a_trial_is_trained_once_and_other_settings_are_refused(tmp_path):
    folder = train(SHORT, tmp_path)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert train(SHORT, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    (folder / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="other settings"):
        train(SHORT, tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"condition": "lasso"}, {"condition": "none"}, {"strength": 0.0}]
)
def test_trials_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(SHORT, **wrong)


def test_channels_and_shares_of_planted_weights():
    assert participation(torch.tensor([0.0, 2.0, 0.0])) == 1
    assert participation(torch.full((7,), 3.0)) == pytest.approx(7)
    assert participation(torch.zeros(3)) == 0
    one = torch.zeros(20, 20)
    one[3, 4] = 5
    assert top_share(one) == 1 and top_share(torch.ones(20, 20)) == pytest.approx(0.01)


def test_legibility_sees_the_basis_of_the_stream_and_not_that_inside_a_head(kept_model):
    _, model = kept_model
    head = effective_weights(model, dtype="float64").head(Head(1, 0))
    found = legibility(head)
    generator = torch.Generator().manual_seed(0)
    inner, outer = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
        for n in (16, 64)
    )
    turned = replace(head, W_Q=head.W_Q @ inner, W_K=head.W_K @ inner)
    turned = replace(turned, W_V=head.W_V @ inner, W_O=inner.T @ head.W_O)
    assert legibility(turned) == pytest.approx(found)
    mixed = {name: outer.T @ getattr(head, name) for name in ("W_Q", "W_K", "W_V")}
    spread = legibility(replace(head, **mixed, W_O=head.W_O @ outer))
    assert spread["channels"] == pytest.approx(spread["channels_chance"], rel=0.15)


def test_a_head_that_writes_nothing_costs_nothing(task):
    model = load(str(kept_folder("none")))
    with torch.no_grad():
        model.blocks[1].attn.W_O[2] = 0
    costs = dict(costs_of_heads(model, task))
    assert costs[Head(1, 2)] == pytest.approx(0, abs=1e-6)
    assert max(costs.values()) > 10 * NEEDED


def test_placing_units_afterwards_shortens_wires_and_changes_no_other_number(kept_model):
    _, model = kept_model
    before, found = sparsity_of(model), wiring_of(model)
    assert found["length_placed"] <= found["length"]
    assert sparsity_of(model) == before and wiring_of(model) == found


def curve(losses, values, condition="l1", seed=0):
    return pd.DataFrame(
        {"data": "d", "condition": condition, "seed": seed, "loss": losses, "length": values}
    )


def test_conditions_meet_at_a_loss_along_their_curves():
    rows = pd.concat([curve([0.1, 0.4], [1.0, 3.0]), curve([0.4, 0.1], [5.0, 3.0], seed=1)])
    table = equal_table(rows, [("d", 0.2)]).set_index("measure")
    assert table.loc["length", ["mean", "low", "high", "n"]].tolist() == pytest.approx([3, 2, 4, 2])
    assert table.loc["loss_reached", "mean"] == pytest.approx(0.2)


def test_a_curve_that_ends_near_a_loss_stands_for_it_and_another_does_not():
    near, far = curve([0.21, 0.3], [1.0, 2.0]), curve([0.3, 0.4], [1.0, 2.0])
    found = at_loss(near, 0.2)
    assert found == pytest.approx({"loss": 0.21, "length": 1.0})
    assert at_loss(far, 0.2) is None


def test_the_figure_is_drawn_from_the_kept_numbers(kept, tmp_path):
    pytest.importorskip("matplotlib")
    from studies.modular_transformers.figure import draw

    draw(kept, tmp_path / "figure.png")
    assert 20_000 < (tmp_path / "figure.png").stat().st_size < 300_000
