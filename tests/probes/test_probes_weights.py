"""Probes of heads, circuits and layers, each against a slow oracle or a model with a planted answer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from probes.composition import TurnedNull, _energies, turned_null
from probes.configs import make_config
from probes.contract import COLUMNS
from probes.copying_eigenvalues import two_sided
from probes.data import ProbeData
from probes.direct_logit_attribution import RESIDUAL, TOTAL
from probes.facts import facts_of
from probes.registry import get_probe
from probes.relabelled import relabelled
from probes.turned import by_position, rotations, turned_scores
from tests.probes.asking import answer, of
from tests.probes.calibration import outcomes, random_model, summary
from tests.probes.conftest import letter_documents
from tests.trigram_models import planted
from workbench.composition.matching import Factors
from workbench.errors import ConfigError
from workbench.heads.behaviours import BEHAVIOURS
from workbench.prompts import random_repeats
from workbench.runs import run
from workbench.stream.attribution import logit_attribution
from workbench.stream.lens import logit_lens
from workbench.training.mlp import MLP, MLPConfig

SMALL = {
    "head-behaviours": {"n_prompts": 3, "n_tokens": 16, "n_draws": 19},
    "copying-eigenvalues": {"n_null": 39, "n_tokens": 8},
    "composition": {"n_matched": 2, "n_null": 5},
    "qk-geometry": {"n_null": 19},
    "positional-kernels": {"n_prompts": 3, "n_tokens": 12, "n_draws": 19},
    "top-circuit-entries": {"k": 3, "n_draws": 9},
    "skip-trigrams": {"k": 6, "n_prompts": 20, "n_tokens": 16, "n_draws": 19},
    "direct-logit-attribution": {"n_prompts": 4, "n_tokens": 12, "n_draws": 19},
    "logit-lens": {"n_prompts": 4, "n_tokens": 12, "n_draws": 19},
}
LABELS = ("letters@10", "letters@200", "other", "<b>&")
DATA = ProbeData(letter_documents(), "letters")


def asked(name, model, data=DATA, **changes):
    return answer(name, model, data, **SMALL[name] | changes)


@pytest.mark.parametrize("name", SMALL)
def test_a_probe_says_the_same_twice_draws_its_tables_and_knows_its_cost(name, model):
    probe, told = get_probe(name), []
    config = make_config(probe, SMALL[name])
    first = probe.run(model, DATA, config, lambda share, doing: told.append(share))
    pd.testing.assert_frame_equal(first, probe.run(model, DATA, config))
    assert told == sorted(told) and min(told) >= 0 and max(told) <= 1
    cost = probe.cost(facts_of(model), DATA.facts, config)
    assert 0 < cost.seconds < 30 and 0 < cost.nbytes < 2e9
    # A report may hold a probe of one model, a series of steps, and labels from anywhere.
    for labels in (LABELS[2:3], LABELS):
        figures = probe.figures({label: first[list(COLUMNS)] for label in labels})
        assert figures
        shown = "".join(figure.to_json() for figure in figures)
        assert "\\u003cb\\u003e&" not in shown and "<b>&" not in shown
        if len(labels) > 1:
            assert "training" in shown or "step" in shown


@pytest.mark.parametrize("name", SMALL)
def test_a_probe_refuses_what_it_cannot_be_asked_of_and_names_what_there_is(name, build):
    perceptron = MLP(MLPConfig(widths=(4, 6, 2)), name="mlp")
    assert "multilayer perceptron" in get_probe(name).refuses(facts_of(perceptron))
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        make_config(get_probe(name), {"seed": -1})
    headless = facts_of(build(order="ff"))
    reason = get_probe(name).refuses(headless)
    assert bool(reason) == (name not in ("direct-logit-attribution", "logit-lens"))
    assert not reason or "0 heads" in reason


def test_queries_that_are_not_turned_score_as_the_model_does(build):
    """With the identity in place of a rotation the null is the model itself, whatever its positions."""
    from probes.head_behaviours import behaviour_weights

    for fields in (
        {"positions": "rotary", "norm": "RMS", "n_kv_heads": 2},
        {"positions": "shortformer", "attn_bias": True},
        {"causal": False},
    ):
        model = build(order="sfsf", **fields)
        tokens = random_repeats(model, 3, 16, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("probes.turned.rotations", lambda *_: torch.eye(8).expand(1, 4, 8, 8))
            found = turned_scores(model, tokens, behaviour_weights, n_draws=1, seed=0)
        table = asked("head-behaviours", model)
        for layer in range(2):
            for at, name in enumerate([*BEHAVIOURS, "distance", "entropy"]):
                own = of(table, name, layer=layer)["value"].to_numpy()
                np.testing.assert_allclose(found[layer][0, :, at], own, atol=1e-5)


def test_rotations_are_orthogonal_and_keep_lengths():
    turns = rotations(5, 2, 6, 0)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(6).expand(5, 2, 6, 6), atol=1e-5, rtol=0)


def test_positions_turn_queries_as_the_model_does(build):
    model = build(positions="rotary")
    x = torch.randn(1, 10, 4, 8)
    own = model.blocks[0].attn._rotate(x)
    torch.testing.assert_close(by_position(model, x.transpose(1, 2)), own.transpose(1, 2))


def test_the_bundled_induction_and_previous_token_heads_are_found(attn_2l):
    table = asked("head-behaviours", attn_2l, n_tokens=48, n_prompts=4, n_draws=39)
    previous, induction = of(table, "previous-token"), of(table, "induction")
    best = previous.loc[previous["value"].idxmax()]
    assert best["layer"] == 0 and best["value"] > 0.9 and best["p"] == 1 / 40
    best = induction.loc[induction["value"].idxmax()]
    assert best["layer"] == 1 and best["p"] == 1 / 40 and best["low"] > best["null_mean"]
    kernels = asked("positional-kernels", attn_2l, n_tokens=24)
    uneven = of(kernels, "unevenness")
    assert uneven.loc[uneven["value"].idxmax(), "layer"] == 0


def test_kernels_sum_to_all_attention(model):
    table = asked("positional-kernels", model)
    kernel = of(table, "kernel", layer=0, head=1)
    queries = 12 - kernel["item"].astype(int)
    assert (kernel["value"] * queries).sum() == pytest.approx(12, abs=1e-4)
    distance = (kernel["value"] * queries * kernel["item"].astype(int)).sum() / 12
    assert of(table, "mean distance", layer=0, head=1)["value"].item() == pytest.approx(distance)


def test_a_planted_copying_and_matching_head_is_found(build):
    """OV and QK of head 0.0 are projections on its own dimensions; those of head 0.1 their negative."""
    model = build(order="ss")
    with torch.no_grad():
        attn = model.blocks[0].attn
        model.unembed.W_U.copy_(model.embed.W_E.T)
        for head, sign in ((0, 1.0), (1, -1.0)):
            attn.W_O[head] = sign * attn.W_V[head].T
            attn.W_K[head] = sign * attn.W_Q[head]
    table = asked("copying-eigenvalues", model)
    for measure in ("copying", "matching"):
        rows = of(table, measure, layer=0).set_index("head")
        assert rows["value"][0] == pytest.approx(1) and rows["value"][1] == pytest.approx(-1)
        assert rows["p"][0] == rows["p"][1] == 2 / 40


def test_ranks_on_both_sides_give_a_p_that_is_never_zero():
    assert two_sided(0, 99) == two_sided(99, 99) == 0.02
    assert two_sided(49, 99) == two_sided(50, 99) == 1.0


def test_geometry_knows_a_symmetric_head(build):
    model = build()
    with torch.no_grad():
        model.blocks[1].attn.W_K[2] = model.blocks[1].attn.W_Q[2]
    table = asked("qk-geometry", model)
    row = of(table, "symmetric share", layer=1, head=2, site="QK")
    assert row["value"].item() == pytest.approx(1) and row["p"].item() == 2 / 20
    assert of(table, "rank (90 %)")["p"].isna().all()


def test_chance_of_composition_is_that_of_heads_turned_at_random():
    """Two pairs of spectra, one flat and one of a few strong directions, against 4,000 rotations."""
    d, generator = 24, torch.Generator().manual_seed(0)
    flat, steep = np.full(6, 1 / 6), np.array([0.7, 0.2, 0.1, 0, 0, 0])
    null = turned_null(np.stack([flat, steep]), np.stack([flat, steep]), d)
    Q = torch.linalg.qr(torch.randn(4000, d, 6, generator=generator)).Q[:, :6].square().numpy()
    for writer, a in enumerate((flat, steep)):
        for reader, b in enumerate((flat, steep)):
            square = np.einsum("i,nji,j->n", a, Q, b)
            assert null.mean == pytest.approx(square.mean(), rel=0.03)
            assert null.std[writer, reader] == pytest.approx(square.std(), rel=0.06)
            cells = [np.full((4000, 1), cell[writer, reader]) for cell in (null.std, null.skew)]
            p = TurnedNull(null.mean, *cells).p(np.sqrt(square)[:, None])
            for level in (0.001, 0.01, 0.05, 0.2):
                assert level / 20 <= (p <= level).mean() + 0.001 <= 1.2 * level + 0.002


def test_energies_are_the_squared_singular_values(build):
    attn = build().blocks[0].attn
    W = (attn.W_V[0] @ attn.W_O[0]).detach().double()
    energy = torch.linalg.svdvals(W)[:8].square()
    found = _energies(Factors(attn.W_O[0].detach().T, attn.W_V[0].detach()))
    np.testing.assert_allclose(found, (energy / energy.sum()).numpy(), rtol=1e-4)


def test_a_planted_key_composition_has_the_smallest_p(build):
    model = build()
    with torch.no_grad():
        writer, reader = model.blocks[0].attn, model.blocks[1].attn
        reader.W_K[3] = writer.W_O[2].T
    rows = of(asked("composition", model), "K-composition")
    best = rows.loc[rows["p"].idxmin()]
    assert (best["item"], best["layer"], best["head"]) == ("0.2", 1, 3)
    assert best["p"] < 1e-6 and best["value"] > best["null_mean"] + 5 * best["null_std"]


@pytest.mark.parametrize(("by", "pick"), [("largest", torch.max), ("smallest", torch.min)])
def test_entries_are_the_extremes_of_the_dense_matrix(build, by, pick):
    model = build(norm="none")
    attn = model.blocks[1].attn
    dense = (model.W_E @ attn.W_V[1] @ attn.W_O[1] @ model.W_U).detach()
    dense = dense - dense.mean(1, keepdim=True)
    table = asked("top-circuit-entries", model, by=by)
    rows = table[(table["site"] == "OV") & (table["layer"] == 1) & (table["head"] == 1)]
    first = rows.iloc[0]
    assert first["value"] == pytest.approx(float(pick(dense)), rel=1e-4)
    assert first["measure"] == ("largest entry" if by == "largest" else "extreme entry (smallest)")
    assert rows["value"].iloc[1] == first["value"] and np.isfinite(first["p"])
    assert of(rows, "entry")["p"].isna().all() and len(rows) == 4


def test_planted_trigrams_are_listed_and_their_lift_is_that_of_the_text(model):
    raised = planted(
        model.tokenizer, [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i"), ("j", "k", "l")]
    )
    lines = ("ambc", "dnef", "ghmi", "jokl", "obmb", "pepe")
    rng = np.random.default_rng(0)
    documents = tuple("".join(rng.choice(lines, size=30)) for _ in range(8))
    data = ProbeData(documents, "planted")
    table = asked("skip-trigrams", raised, data, k=4, n_tokens=20, n_draws=99)
    assert set(of(table, "rate", head=0)["item"]) == {
        "a … b → c", "d … e → f", "g … h → i", "j … k → l",
    }  # fmt: skip
    tokens = data.tokens(raised, 20, 20, 0).tolist()
    source, destination, out = raised.tokenizer.encode("abc", add_special_tokens=False)
    places = [
        (row[at + 1] == out, source in row[:at])
        for row in tokens
        for at in range(19)
        if row[at] == destination
    ]
    seen = [hit for hit, before in places if before]
    rate = of(table, "rate", item="a … b → c")
    assert rate["value"].item() == pytest.approx(np.mean(seen)) and rate["n"].item() == len(seen)
    assert rate["null_mean"].item() == pytest.approx(np.mean([hit for hit, _ in places]))
    lifts = of(table, "lift", head=0)
    excess = of(table, "rate", head=0)
    assert lifts["value"].item() == pytest.approx((excess["value"] - excess["null_mean"]).mean())
    # The second head writes nothing: it lists nothing and lifts nothing.
    assert of(table, "lift", head=1)["n"].item() == 0


def test_attribution_is_the_mean_of_single_positions_and_sums_to_the_logit(build):
    model = build(order="sfsf", norm="RMS", attn_bias=True, mlp_bias=True)
    table = asked("direct-logit-attribution", model, n_prompts=2)
    tokens = DATA.tokens(model, 2, 12, 0)
    slow = []
    for row in tokens.tolist():
        for pos in range(11):
            found = logit_attribution(
                model, [row], row[pos + 1], distractor="mean", pos=pos, by="head"
            )
            slow.append(found.values)
    parts = of(table, "direct effect")
    np.testing.assert_allclose(parts["value"], np.mean(slow, axis=0), atol=1e-4)
    assert parts["value"].sum() == pytest.approx(of(table, TOTAL)["value"].item(), abs=1e-5)
    assert of(table, RESIDUAL)["value"].item() < 1e-3


def test_renamed_targets_keep_which_tokens_are_alike():
    targets = np.array([3, 1, 3, 0])
    drawn = relabelled(targets, 5, n_draws=40, seed=1)
    assert drawn.shape == (40, 4) and (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, 0] != drawn[:, 1]).all() and set(np.unique(drawn)) == set(range(5))
    np.testing.assert_array_equal(drawn, relabelled(targets, 5, n_draws=40, seed=1))


def test_the_lens_ends_in_the_models_own_loss_and_agrees_with_the_lens_of_one_prompt(model):
    table = asked("logit-lens", model)
    tokens = DATA.split(0).held_out.tokens(model, 4, 12, 0)
    log_probs = run(model, tokens).logits[:, :-1].double().log_softmax(-1)
    own = -log_probs.gather(2, tokens[:, 1:, None]).mean()
    last = table["layer"].max()
    assert of(table, "loss", layer=last)["value"].item() == pytest.approx(float(own), abs=1e-5)
    assert of(table, "KL to final", layer=last)["value"].item() == pytest.approx(0, abs=1e-6)
    slow = [logit_lens(model, [row], tokens=sorted(set(row))) for row in tokens.tolist()]
    for layer in range(3):
        kl = np.mean([one.kl[layer, :-1].mean() for one in slow])
        assert of(table, "KL to final", layer=layer)["value"].item() == pytest.approx(kl, abs=1e-4)
        ranks = [
            one.ranks[layer, pos, one.chosen.index(row[pos + 1])]
            for one, row in zip(slow, tokens.tolist(), strict=True)
            for pos in range(11)
        ]
        found = of(table, "log rank", layer=layer)["value"].item()
        assert found == pytest.approx(np.mean(np.log1p(ranks)), abs=1e-9)
        share = of(table, "right", layer=layer)["value"].item()
        assert share == pytest.approx(np.mean(np.array(ranks) == 0))


def test_deep_models_are_read_at_chosen_depths(model):
    table = asked("logit-lens", model, most_depths=2)
    assert sorted(table["layer"].unique()) == [0, 2]


def test_random_models_give_no_more_discoveries_than_chance_allows():
    """A few models only; `python -m tests.probes.calibration` asks many."""
    names = ("head-behaviours", "copying-eigenvalues", "composition", "direct-logit-attribution")
    data = ProbeData(tuple("def f(x):\n    return x + 1\n" * 40 + str(i) for i in range(4)), "code")
    found = list(outcomes(names, range(3), data))
    assert len(found) == 12 and len(summary(found)) == 5
    p = np.concatenate([outcome.p for outcome in found])
    assert (p < 0.05).mean() < 0.12
    assert sum(outcome.n_discoveries > 0 for outcome in found) <= 4


def test_a_random_model_is_the_same_for_one_seed():
    one, other = random_model(3), random_model(3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    config = get_probe("composition").Config()
    assert replace(config, seed=1) != config
