"""What a unit responds to is what was planted, what it is wired to is what it is wired to."""

import numpy as np
import pytest
import torch

from tests.test_weights import OWN, randomised
from workbench.errors import ConfigError, SiteError
from workbench.runs import run
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.responses import feature_of, responses
from workbench.training.tasks import InContextRegression, formula_task, modular_addition
from workbench.training.wires import groups, wires


def test_a_planted_unit_responds_to_its_input_alone():
    model = MLP(MLPConfig(widths=(4, 3, 2), activation="relu"))
    with torch.no_grad():
        model.layers[0].W.zero_()
        model.layers[0].W[2, 1] = 3.0
        model.layers[0].b.zero_()
    task = formula_task("independence", n_test=500)
    found = responses(model, task, "hidden 0", 1)
    assert found.features[0].name == "x3"
    assert found.features[0].explained > 0.97
    assert all(abs(feature.explained) < 0.1 for feature in found.features[1:])
    x = task.test.inputs[:, 2].numpy()
    expected = np.maximum(3 * x, 0)
    assert found.features[0].correlation == pytest.approx(np.corrcoef(x, expected)[0, 1], abs=1e-6)
    assert found.highest[0].activation == pytest.approx(expected.max(), rel=1e-5)
    assert [(wire.unit, wire.weight) for wire in found.incoming] == [(2, 3.0)]


def test_places_are_read_where_units_stand():
    model = MLP(MLPConfig(widths=(4, 3, 2)))
    model.in_perm.copy_(torch.tensor([3, 2, 1, 0]))
    found = responses(model, formula_task("independence"), "inputs", 0)
    assert found.features[0].name == "x4" and found.features[0].correlation == pytest.approx(1)


def test_a_square_is_explained_though_it_does_not_correlate():
    x = np.linspace(-1, 1, 1001)
    feature = feature_of("x", x, x**2)
    assert abs(feature.correlation) < 1e-6 and feature.explained > 0.97


def test_nothing_is_explained_by_chance():
    rng = np.random.default_rng(0)
    explained = [
        feature_of("x", rng.integers(0, 40, 100), rng.normal(size=100)).explained
        for _ in range(300)
    ]
    assert abs(np.mean(explained)) < 0.03


@pytest.mark.parametrize("n_values", [3, 500])
def test_means_come_back_to_the_mean_of_all(n_values):
    rng = np.random.default_rng(1)
    given, activation = rng.integers(0, n_values, 640), rng.normal(size=640)
    feature = feature_of("x", given, activation)
    if n_values == 3:
        for value, mean in zip(feature.values, feature.mean, strict=True):
            assert mean == pytest.approx(activation[given == value].mean())
    else:
        assert len(feature.mean) == 16
        assert feature.mean.mean() == pytest.approx(activation.mean())
    assert (np.diff(feature.values) > 0).all()


def test_a_constant_unit_responds_to_nothing():
    feature = feature_of("x", np.arange(50.0), np.ones(50))
    assert feature.explained == feature.correlation == 0


def test_tokens_of_a_network_that_embeds_them_are_features():
    task = modular_addition(p=7)
    model = MLP(MLPConfig(widths=(8, 5, 7), embedding=7, in_fold=2))
    found = responses(model, task, "hidden 0", 3)
    assert {feature.name for feature in found.features} == {"token 1", "token 2"}
    assert np.isnan(found.features[0].correlation)
    assert "looked up" in responses(model, task, "tokens", 3).unread


READS = {
    ("blocks.0.qk", "query"): "q.0",
    ("blocks.0.qk", "key"): "k.0",
    ("blocks.0.vo", "value"): "v.0",
}


@pytest.mark.parametrize(("group", "what"), READS)
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_a_head_is_read_where_a_run_keeps_it(build, group, what, kv_heads):
    model = randomised(build, {"order": "sf", "n_kv_heads": kv_heads})
    tokens = torch.randint(0, 18, (3, 8), generator=torch.Generator().manual_seed(1))
    size, head, unit = (
        model.cfg.head_sizes[0][0] if model.cfg.head_sizes else model.blocks[0].attn.head_sizes[0],
        3,
        1,
    )
    found = responses(model, tokens, group, head * size + unit, what=what)
    site = READS[group, what]
    owner = head if what == "query" else head // model.blocks[0].attn.group
    kept = run(model, tokens, sites=(site,))[site][:, :, owner, unit].flatten().tolist()
    assert found.what == what and found.n_examples == 24
    assert found.mean == pytest.approx(np.mean(kept), abs=1e-6)
    assert found.highest[0].activation == pytest.approx(max(kept), rel=1e-5)


@pytest.mark.parametrize(
    ("group", "site"), [("blocks.0.mlp", "mlp_post.0"), ("stream", "resid_post.0")]
)
def test_neurons_and_channels_are_read_where_a_run_keeps_them(build, group, site):
    model = randomised(build, {"order": "sf"})
    tokens = torch.randint(0, 18, (3, 8), generator=torch.Generator().manual_seed(1))
    if site == "resid_post.0":
        site = f"resid_post.{len(model.blocks) - 1}"
    kept = run(model, tokens, sites=(site,))[site][:, :, 5].flatten().tolist()
    found = responses(model, tokens, group, 5)
    assert found.lowest[0].activation == pytest.approx(min(kept), rel=1e-5)
    logit = responses(model, tokens, "logits", 2) if "logits" in groups(model) else None
    if logit is not None:
        with torch.no_grad():
            assert logit.mean == pytest.approx(float(model(tokens)[:, :, 2].mean()), abs=1e-5)


def test_a_network_that_reads_numbers_is_read_through_its_task():
    from workbench.models.config import TransformerConfig
    from workbench.models.transformer import Transformer

    task = InContextRegression(n_sequences=100, n_rows=16)
    model = Transformer(TransformerConfig(order="sf", d_model=8, n_heads=2, **task.shape))
    found = responses(model, task, "blocks.0.mlp", 3)
    assert {"channel 0", "channel 1", "position"} == {feature.name for feature in found.features}
    assert found.n_examples == 16 * 3
    assert responses(model, task, "logits", 0).what == "logit"


@pytest.mark.parametrize("name", ["RMS, rotary, grouped, gated", "unequal heads"])
def test_wires_are_those_of_the_unit_strongest_first(build, name):
    model = randomised(build, OWN[name])
    blocks = [(b.source, b.target, b.weight.detach().numpy()) for b in wires(model)]
    for group, n in groups(model).items():
        found = responses(model, None, group, n - 1)
        into = np.concatenate([w[:, n - 1] for _, target, w in blocks if target == group] or [[]])
        out = np.concatenate([w[n - 1] for source, _, w in blocks if source == group] or [[]])
        for seen, expected in ((found.incoming, into), (found.outgoing, out)):
            sizes = np.sort(np.abs(expected[expected != 0]))[::-1][:12]
            np.testing.assert_allclose([abs(wire.weight) for wire in seen], sizes)
        assert found.unread and found.n_examples == 0


def test_the_table_holds_it_all():
    model = MLP(MLPConfig(widths=(4, 3, 2)))
    found = responses(model, formula_task("independence"), "hidden 0", 1)
    assert found.table()["kind"].value_counts().to_dict() == {
        "feature": 4, "highest": 12, "lowest": 12, "incoming": 4, "outgoing": 2,
    }  # fmt: skip


def test_units_that_are_not_there_are_refused(build):
    model = MLP(MLPConfig(widths=(4, 3, 2)))
    with pytest.raises(SiteError, match="no group 'x'; it has inputs"):
        responses(model, None, "x", 0)
    with pytest.raises(SiteError, match="run from 0 to 2, not 3"):
        responses(model, None, "hidden 0", 3)
    with pytest.raises(ConfigError, match="no 'key'"):
        responses(model, formula_task("independence"), "hidden 0", 0, what="key")
    transformer = randomised(build, {"order": "s"})
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match="has query and key, and no 'value'"):
        responses(transformer, tokens, "blocks.0.qk", 0, what="value")
