"""Tables of findings, configs of probes and numbers beside their null."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.configs import check_number, check_whole, config_json, make_config
from probes.contract import COLUMNS, check_table, findings_table
from probes.facts import facts_of
from probes.nulls import beside_null, bootstrap
from probes.residual_norms import PROBE, NormsConfig
from tests.test_weights import encoder, public
from workbench.errors import ConfigError, WorkbenchError
from workbench.training.mlp import MLP, MLPConfig


def table(**changes):
    return findings_table([{"measure": "size", "value": 1.0, "layer": 2} | changes])


def test_a_table_of_findings_has_every_column_and_nothing_where_nothing_was_said():
    found = table()
    check_table(found, "it")
    assert tuple(found.columns) == COLUMNS
    row = found.iloc[0]
    assert (row["layer"], row["site"], row["item"]) == (2, "", "")
    assert row["head"] is pd.NA and math.isnan(row["p"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda found: found.drop(columns="p"), "the columns are"),
        (lambda found: found.assign(layer=0.5), "column layer"),
        (lambda found: found.assign(value="much"), "column value"),
        (lambda found: found.assign(value=np.inf), "infinite"),
        (lambda found: found.assign(p=1.5), "from 0 to 1"),
        (lambda found: found.assign(measure=pd.array([""], dtype="str")), "names its measure"),
        (lambda found: found.iloc[:0], "nothing at all"),
        (lambda found: None, "no table"),
    ],
)
def test_a_table_that_is_not_as_agreed_is_refused(wrong, message):
    with pytest.raises(WorkbenchError, match=message):
        check_table(wrong(table()), "size-of-weights")


def test_a_finding_needs_a_measure_and_a_value_and_has_no_column_of_its_own():
    with pytest.raises(WorkbenchError, match="without value"):
        findings_table([{"measure": "size"}])
    with pytest.raises(WorkbenchError, match="no column 'colour'"):
        table(colour="red")


def test_settings_are_checked_by_name():
    assert make_config(PROBE, {"n_prompts": 3}) == NormsConfig(n_prompts=3)
    with pytest.raises(ConfigError, match="no setting 'prompts': it has n_prompts"):
        make_config(PROBE, {"prompts": 3})
    for wrong in (0, -1, True, "3", 2.5, None, [1]):
        with pytest.raises(ConfigError, match="n_prompts must be a whole number from 1"):
            make_config(PROBE, {"n_prompts": wrong})


@given(value=st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans()))
def test_a_number_is_taken_exactly_where_it_is_one_of_the_range(value):
    is_number = type(value) in (int, float) and 0 <= value <= 1
    try:
        check_number("share", value, 0, 1)
    except ConfigError:
        assert not is_number
    else:
        assert is_number


def test_equal_configs_are_spelled_alike():
    assert config_json(NormsConfig()) == config_json(make_config(PROBE, {"seed": 0}))
    check_whole("seed", 0, 0, 0)


def test_a_value_counts_among_its_own_null():
    """So p is never 0; and it is 1 where the value is the null's own mean."""
    null = np.arange(99.0)
    assert beside_null(1000.0, null)["p"] == 1 / 100
    assert beside_null(49.0, null)["p"] == 1
    assert beside_null(-902.0, null)["p"] == 1 / 100
    assert math.isnan(beside_null(1.0, [])["p"])


@pytest.mark.parametrize("n_draws", [1, 2, 5, 19])
def test_p_of_nothing_is_exact_however_few_the_draws(n_draws):
    """Of value and draws alike, p is each multiple of 1 / (1 + n) as often, lopsided as their law may be."""
    n, rng = 8_000, np.random.default_rng(n_draws)
    for drawn in (rng.normal(size=(n, 1 + n_draws)), rng.exponential(size=(n, 1 + n_draws))):
        found = np.array([beside_null(one[0], one[1:])["p"] for one in drawn])
        for rank in range(1, n_draws + 1):
            level = rank / (1 + n_draws)
            # With one draw, both are as far from their middle.
            wanted = level if n_draws > 1 else 0.0
            share = np.mean(found <= level + 1e-9)
            assert abs(share - wanted) < 4.5 * (level * (1 - level) / n) ** 0.5


def test_an_interval_holds_the_mean_that_it_is_of_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    held = [
        (found := bootstrap(values, seed=0, n_draws=200))["low"] < 0 < found["high"]
        for values in rng.normal(size=(400, 40))
    ]
    assert 0.9 < np.mean(held) < 0.98
    assert math.isnan(bootstrap(np.array([1.0]), seed=0)["low"])


def test_facts_of_every_kind_of_model(model, build):
    ours = facts_of(model)
    assert (ours.kind, ours.n_layers, ours.n_heads, ours.d_mlp) == ("transformer", 2, 4, 128)
    assert ours.has_mlp and ours.is_causal and ours.has_unembed and ours.has_tokenizer
    unequal = facts_of(build(order="ss", head_sizes=((16, 4), (8, 8, 2)), n_heads=1))
    assert (unequal.n_heads, unequal.d_head, unequal.has_mlp) == (3, 16, False)
    assert facts_of(build(order="ff")).n_heads == 0
    assert facts_of(build(causal=False)).kind == "encoder"
    mlp = facts_of(MLP(MLPConfig(widths=(3, 5, 2))))
    assert (mlp.kind, mlp.n_layers, mlp.n_heads, mlp.d_mlp, mlp.n_ctx) == ("mlp", 2, 0, 5, 0)


def test_facts_of_public_models():
    llama = facts_of(public("llama"))
    assert (llama.kind, llama.n_heads, llama.d_head, llama.d_mlp) == ("transformer", 4, 8, 48)
    assert (llama.positions, llama.is_ours, llama.has_unembed) == ("rotary", False, True)
    assert facts_of(encoder()).kind == "encoder" and not facts_of(encoder()).has_unembed
