"""Every probe goes through one battery: on every kind of model it is either refused by name, or it gives the
same table twice, as agreed, and figures from that table alone; and on models that have learnt nothing, its
numbers scatter around their null."""

import re
import time
from dataclasses import fields, replace

import numpy as np
import pytest

from benchmarks.probe_costs import FACTOR, LEAST_SECONDS, off_by
from probes.configs import config_json, make_config
from probes.contract import check_table, silent
from probes.data import read_data
from probes.facts import facts_of
from probes.registry import get_probe, probe_names
from tests.test_weights import encoder, public
from workbench import load
from workbench.errors import ConfigError, UnsupportedError
from workbench.training.mlp import MLP, MLPConfig

OWN = {
    "attention-only": {"order": "ss", "positions": "shortformer"},
    "layer-norm": {"order": "sfsf", "norm": "LN", "attn_bias": True, "mlp_bias": True},
    "llama-kind": {"order": "sfsf", "norm": "RMS", "positions": "rotary", "mlp": "swiglu", "n_kv_heads": 2},
    "bidirectional": {"order": "sfsf", "norm": "LN", "norm_position": "post", "causal": False},
    "unequal-heads": {"order": "ss", "head_sizes": ((16, 4), (8, 8, 2)), "n_heads": 1},
    "no-attention": {"order": "ff"},
    "one-layer": {"order": "s", "n_heads": 1},
}  # fmt: skip
OTHERS = {
    "perceptron": lambda: MLP(MLPConfig(widths=(6, 8, 8, 3)), name="perceptron").eval(),
    "public-llama": lambda: public("llama"),
    "public-encoder": encoder,
}
# What makes a run quick; a probe that needs more of something keeps its own number.
SMALL = {
    "n_prompts": 3, "n_tokens": 12, "n_draws": 9, "n_null": 9, "n_matched": 4, "most_heads": 2,
    "most_depths": 3, "n_steps": 5, "k": 5, "n_shuffles": 5, "n_controls": 5,
}  # fmt: skip
N_RANDOM = 8
# Where a probe's own numbers take long.
CHEAP = {"modularity-wiring": {"n_shuffles": 2}}
# On these kinds a probe is asked twice and drawn; on the others once.
TWICE = ("layer-norm", "unequal-heads", "perceptron", "public-llama")


def quick(probe):
    """The probe's config with small numbers, one field at a time."""
    config = probe.Config()
    for field in fields(config):
        default = getattr(config, field.name)
        if field.name in SMALL and isinstance(default, int):
            try:
                config = replace(config, **{field.name: min(default, SMALL[field.name])})
            except ConfigError:
                continue
    return config


@pytest.fixture(scope="module")
def kinds(build):
    """Every kind of model, made once."""
    own = {name: build(**shape) for name, shape in OWN.items()}
    for name, model in own.items():
        model.name = name
    return own | {name: make() for name, make in OTHERS.items()}


@pytest.mark.parametrize("kind", [*OWN, *OTHERS])
@pytest.mark.parametrize("name", probe_names())
def test_a_probe_answers_twice_alike_or_refuses_by_name(name, kind, kinds, letter_data):
    probe, model = get_probe(name), kinds[kind]
    facts, config = facts_of(model), quick(get_probe(name))
    reason = probe.refuses(facts)
    if reason:
        assert facts.name in reason, "a refusal names the model"
        return
    cost = probe.cost(facts, letter_data.facts, config)
    assert cost.seconds > 0 and cost.nbytes > 0
    shares = []
    try:
        table = probe.run(model, letter_data, config, lambda share, doing: shares.append(share))
    except UnsupportedError as error:
        assert facts.name in str(error) or kind in str(error)
        return
    check_table(table, name)
    check_ranks(probe, config, table["p"].dropna())
    assert all(0 <= share <= 1 for share in shares) and shares == sorted(shares)
    if kind not in TWICE:
        return
    assert table.equals(probe.run(model, letter_data, config, silent))
    figures = probe.figures({"one <b>": table, "other": table})
    assert figures and all(figure.to_json() for figure in figures)


@pytest.fixture(scope="module")
def bundled(attn_2l):
    """A model with heads alone and one with MLPs."""
    return attn_2l, load("mlp-2l")


@pytest.mark.slow
@pytest.mark.parametrize("name", probe_names())
def test_a_cost_is_within_a_factor_of_three_of_the_time_taken(name, bundled):
    """Seconds of the processor, so that other programs hardly count; below a second both are small."""
    probe, data = get_probe(name), read_data("stdlib")
    model = next(model for model in bundled if not probe.refuses(facts_of(model)))
    probe.run(model, data, quick(probe))  # modules are imported once, caches filled
    config = replace(probe.Config(), **CHEAP.get(name, {}))
    expected = probe.cost(facts_of(model), data.facts, config)
    begun = time.process_time()
    probe.run(model, data, config)
    seconds = time.process_time() - begun
    print(f"{name}: {seconds:.2f} s taken, {expected.seconds:.2f} s expected")
    off = off_by(seconds, expected.seconds, LEAST_SECONDS)
    assert off <= FACTOR, f"{seconds:.2f} s taken, {expected.seconds:.2f} s expected"


def check_ranks(probe, config, p):
    """Where a probe names its draws, every p is a rank among them, none below what it says."""
    if not probe.draws:
        return
    ranks = p.to_numpy() * (1 + getattr(config, probe.draws))
    assert np.allclose(ranks, ranks.round()) and (ranks.round() >= probe.sides).all()
    assert ((ranks.round() % probe.sides == 0) | (p == 1)).all()


@pytest.mark.parametrize("name", probe_names())
def test_a_probe_says_what_it_is(name):
    probe = get_probe(name)
    assert probe.name == name and probe.version >= 1 and probe.kind in ("weights", "data")
    assert probe.question.endswith("?") and "\n" not in probe.question
    assert min(map(len, (probe.title, probe.method, probe.limits, probe.needs))) > 10
    assert any(" = " in code for code in re.findall("`([^`]+)`", probe.method)), "a formula"
    assert probe.needs.count("; ") >= 1 and "\n" not in probe.needs
    assert "seed" in {field.name for field in fields(probe.Config)}
    assert make_config(probe, {"seed": 3}).seed == 3 and config_json(probe.Config())


@pytest.mark.parametrize("name", probe_names())
def test_numbers_of_models_that_have_learnt_nothing_scatter_around_their_null(
    name, build, letter_data
):
    """Means over a model's rows, in standard deviations of the null; models are independent, rows are not."""
    probe = get_probe(name)
    means: dict[str, list[float]] = {}
    for seed in range(N_RANDOM):
        model = build(seed=seed + 10, scale=1.0, order="sfsf", norm="LN")
        if probe.refuses(facts_of(model)):
            pytest.skip(f"{name} is not asked of transformers")
        try:
            table = probe.run(model, letter_data, replace(quick(probe), seed=seed))
        except UnsupportedError as error:
            pytest.skip(str(error))
        # A null without p is a chance level, not the law of numbers of models that have learnt nothing.
        rows = table[(table["null_std"] > 0) & table["p"].notna()]
        if not len(rows):
            pytest.skip(f"{name} has no null")
        z = (rows["value"] - rows["null_mean"]) / rows["null_std"]
        for measure, values in z.groupby(rows["measure"]):
            means.setdefault(measure, []).append(float(values.mean()))
    for measure, values in means.items():
        far = abs(np.mean(values))
        spread = np.std(values, ddof=1) / len(values) ** 0.5
        assert far < 0.5 + 3 * spread, f"{name}: {measure} is {far:.2f} from its null on average"
