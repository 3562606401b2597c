"""Probes of text: lost heads, context, orders, neurons and wiring; planted or by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kstest

from probes.configs import make_config
from probes.data import ProbeData, read_data
from probes.facts import facts_of
from probes.in_context_learning import EARLY, LATE, N_BINS
from probes.neuron_statistics import participation, turned
from probes.registry import get_probe
from tests.probes.asking import answer, of
from tests.probes.calibration import outcomes
from tests.probes.conftest import letter_documents
from tests.test_weights import public
from workbench.errors import ConfigError
from workbench.heads.ablation import head_effects
from workbench.training.mlp import MLP, MLPConfig

DATA = ProbeData(letter_documents(), "letters")
SMALL = {
    "head-ablation": {"n_prompts": 3, "n_tokens": 12, "n_draws": 19},
    "in-context-learning": {"n_prompts": 6, "n_tokens": 64, "n_draws": 99},
    "order-spectrum": {"n_prompts": 3, "n_tokens": 8},
    "neuron-statistics": {"n_prompts": 3, "n_tokens": 12},
    "linear-probes": {"n_prompts": 9, "n_tokens": 20, "n_controls": 9},
    "modularity-wiring": {"n_shuffles": 9},
}


def asked(name, model, data=DATA, **changes):
    return answer(name, model, data, **SMALL[name] | changes)


def test_lost_heads_are_the_librarys_effects_over_the_same_rows(build):
    model = build(order="ss", seed=2)
    table = asked("head-ablation", model)
    found = head_effects(model, DATA.tokens(model, 3, 12, 0), n_draws=19)
    np.testing.assert_allclose(of(table, "effect")["value"], found.effect.mean(0))
    np.testing.assert_allclose(of(table, "kl")["value"], found.kl.mean(0))
    assert of(table, "effect")["p"].between(1 / 20, 1).all() and of(table, "kl")["p"].isna().all()


def test_loss_by_position_and_the_score_are_means_of_the_losses(build):
    model = build(order="s", n_ctx=64)
    table = asked("in-context-learning", model)
    tokens = DATA.tokens(model, 6, 64, 0)
    losses = torch.stack(
        [-model(row[None])[0, :-1].log_softmax(-1)[range(63), row[1:]] for row in tokens]
    )
    bins = np.stack(
        [part.mean(1) for part in np.array_split(losses.detach().numpy(), N_BINS, 1)], 1
    )
    np.testing.assert_allclose(of(table, "loss")["value"], bins.mean(0), rtol=1e-5)
    score = (bins[:, LATE].mean(1) - bins[:, EARLY].mean(1)).mean()
    np.testing.assert_allclose(of(table, "score")["value"], [score], rtol=1e-4)


def test_the_score_of_random_models_ranks_anywhere_among_those_of_renamed_tokens():
    """Their losses change with the position, so a null without change would be passed by every other one."""
    code = ProbeData(read_data("stdlib").documents[:40], "part of stdlib")
    found = list(outcomes(["in-context-learning"], range(24), code))
    p = np.concatenate([outcome.p for outcome in found])
    assert len(p) == 24 and p.min() < 0.3
    assert binomtest(int((p < 0.05).sum()), 24, 0.05, alternative="greater").pvalue > 0.001
    assert kstest(p, "uniform").pvalue > 0.001


def test_capped_logits_are_refused_by_name_where_they_had_to_be_a_sum():
    """Gemma 2's are cap * tanh(logits / cap); without a tokenizer the tiny one would be refused for that."""
    capped, plain = (
        replace(facts_of(public(name)), has_tokenizer=True) for name in ("gemma2", "llama")
    )
    assert capped.caps_logits and not plain.caps_logits
    asked_of = get_probe("direct-logit-attribution").refuses
    assert "gemma2" in asked_of(capped) and "caps its logits" in asked_of(capped)
    assert not asked_of(plain)
    assert not get_probe("logit-lens").refuses(capped), "the lens reads through the cap"


def test_orders_add_up_to_the_models_own_numbers(build):
    model = build(order="sfsf", norm="LN").double()
    table = asked("order-spectrum", model)
    assert (of(table, "residual")["value"] < 1e-9).all()
    tokens = DATA.tokens(model, 3, 8, 0)
    logits = [model(row[None])[0, -2].detach() for row in tokens]
    centred = [float(one[row[-1]] - one.mean()) for one, row in zip(logits, tokens, strict=True)]
    assert of(table, "logit")["value"].sum() == pytest.approx(np.mean(centred), abs=1e-9)
    uniform = np.log(model.cfg.d_out)
    marginal, loss = of(table, "marginal")["value"], of(table, "loss")["value"]
    np.testing.assert_allclose(uniform + marginal.cumsum(), loss)
    with pytest.raises(ConfigError, match="all, heads, mlps"):
        make_config(get_probe("order-spectrum"), {"counted": "neurons"})


def test_participation_is_one_for_what_is_even_and_one_over_n_for_what_fires_once():
    acts = np.zeros((10, 3))
    acts[:, 0], acts[4, 1] = -2.0, 5.0
    found = participation(acts)
    np.testing.assert_allclose(found[:2], [1.0, 0.1])
    assert np.isnan(found[2])


def test_planted_dead_neurons_are_counted_and_examples_name_what_stood_there(build):
    model = build(order="sf", mlp="relu", d_mlp=16)
    with torch.no_grad():
        model.blocks[0].mlp.W_in[:, :4] = 0
        model.blocks[0].mlp.W_out[:] = 0
    table = asked("neuron-statistics", model)
    assert of(table, "dead")["value"].item() == 4 / 16
    examples = of(table, "example")
    assert len(examples) == 15 and examples["item"].str.startswith("neuron ").all()
    row = of(table, "participation").iloc[0]
    assert row["value"] < row["null_mean"] - 5 * row["null_std"] and np.isnan(row["p"])


def test_turned_neurons_are_as_even_as_their_law_is():
    """Of Gaussian activations every turn is Gaussian: participation is (E|a|)² / E a² = 2/π."""
    acts = np.random.default_rng(0).normal(size=(4000, 12)).astype(np.float32)
    acts[:, 0] *= 3
    found = turned(acts, 5, 0)
    np.testing.assert_allclose(found, 2 / np.pi, atol=0.01)
    assert len(set(found)) == 5 and found == turned(acts, 5, 0)


def test_two_planted_modules_are_found_and_their_shuffle_is_not():
    model = MLP(MLPConfig(widths=(8, 16, 16, 4)), name="planted")
    with torch.no_grad():
        for layer in model.layers:
            rows, columns = layer.W.shape
            own = (torch.arange(rows)[:, None] < rows // 2) == (
                torch.arange(columns) < columns // 2
            )
            layer.W.copy_(own.float() + 0.01)
    table = asked("modularity-wiring", model)
    row = of(table, "Newman Q").iloc[0]
    assert row["value"] > 0.4 > row["null_mean"] + 5 * row["null_std"]
    assert row["p"] == pytest.approx(0.1)
    assert not len(of(table, "task loss"))


@pytest.mark.parametrize("name", SMALL)
def test_probes_of_text_say_what_they_cannot_be_asked_of(name, build):
    mlp = facts_of(MLP(MLPConfig(widths=(4, 6, 2)), name="plain"))
    reason = get_probe(name).refuses(mlp)
    assert (name == "modularity-wiring") == (reason == "")
    if reason:
        assert "plain is a multilayer perceptron" in reason
