"""Scores are sums over pairs of parts, exactly; with one side held they are linear questions to the stream."""

import numpy as np
import pytest
import torch

from tests.paths.exactness import IDS, TOLERANCE, model_of
from tests.paths.test_frozen import OURS, double
from tests.test_weights import PUBLIC
from workbench.errors import ConfigError, PromptError, SiteError, UnsupportedError
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.query_key import query_key
from workbench.paths.scores import score_direction, score_parts
from workbench.paths.search import top_paths
from workbench.paths.through import paths_through
from workbench.paths.verify import verify
from workbench.runs import run
from workbench.sites import Head, Site
from workbench.stream.parts import Part

ATTENDING = [name for name in OURS if OURS[name]["order"]]
CELLS = [(4, 3, "mean"), (7, 2, None), (6, 6, None), (5, 1, 0)]
DEEP = "LN, learned, biases"


def heads_of(model):
    """One head of every layer, not always the first."""
    counts = [model.n_heads_in(layer) for layer in range(model.cfg.n_layers)]
    return [Head(layer, layer % n) for layer, n in enumerate(counts) if n]


def model_number(model, head, query, key, versus):
    """The number asked for, from the model's own scores."""
    scores = run(model, IDS, sites=["scores"])[Site("scores", head.layer)][0, head.head, query]
    if versus is None:
        return float(scores[key])
    if versus == "mean":
        seen = [float(s) for other, s in enumerate(scores) if other != key and s > -1e30]
        return float(scores[key]) - sum(seen) / len(seen)
    return float(scores[key] - scores[versus])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [*ATTENDING, *PUBLIC, "bert"])
def test_pairs_and_directions_sum_to_the_models_own_score(name, dtype):
    model = model_of(name, dtype)
    frozen, tolerance = freeze(model, IDS), TOLERANCE[dtype]
    for head in heads_of(model):
        maps = query_key(frozen, head)
        for query, key, versus in CELLS:
            found = score_parts(frozen, maps, query, key, versus=versus)
            assert found.total == pytest.approx(model_number(model, head, query, key, versus))
            largest = np.abs(found.values).max()
            assert abs(found.residual) < tolerance * largest
            assert sum(found.shares) == pytest.approx(found.values.sum(), abs=1e-9 * largest)
        _assert_same_directions(frozen, maps, *CELLS[head.layer], tolerance)


def _assert_same_directions(frozen, maps, query, key, versus, tolerance):
    """With one side held, everything that enters the other sums to the score, part by part as in the pairs."""
    found = score_parts(frozen, maps, query, key, versus=versus)
    largest = np.abs(found.values).max()
    for side, sums in (("query", found.by_query), ("key", found.by_key)):
        direction = score_direction(frozen, maps, query, key, side=side, versus=versus)
        assert direction.total == found.total and direction.unit == "score"
        through, orders = paths_through(frozen, direction), order_spectrum(frozen, direction)
        size = max(np.abs(orders.orders).max(), largest, abs(direction.bias))
        assert abs(through.residual) < tolerance * size
        assert abs(orders.residual) < tolerance * size
        _assert_same_parts(found, side, sums, through, tolerance * size)


def _assert_same_parts(found, side, sums, through, tolerance):
    """What goes straight from a part into the side is that part's row or column."""
    parts = found.query_parts if side == "query" else found.key_parts
    into = dict(zip(through.writers, through.edges[:, -1], strict=True))
    own = [index for index, part in enumerate(parts) if part not in into]
    assert {parts[index].label for index in own} <= {
        "b_Q" if side == "query" else "b_K",
        f"pos ({side})",
    }
    assert sums[own].sum() == pytest.approx(through.bias, abs=tolerance)
    for part, value in zip(parts, sums, strict=True):
        if part in into:
            assert value == pytest.approx(into[part], abs=tolerance)
    left_out = set(into) - set(parts)  # nothing but constants of zero
    assert all(into[part] == 0 and part.kind == "bias" for part in left_out)


def test_pairs_are_those_of_the_plain_formula(build):
    """LayerNorm, biases and learned positions, spelled out from raw weights with the scale of this pass."""
    model = double(build, DEEP)
    frozen, head, query, key = freeze(model, IDS), Head(1, 2), 6, 3
    found = score_parts(frozen, head, query, key)
    block = model.blocks[1]
    attn, stream = block.attn, frozen.levels[2]
    scale = (stream.var(-1, correction=0) + model.cfg.eps).sqrt()
    vectors = {**frozen.sources, frozen.steps[0].bias: frozen.steps[0].constant}
    vectors |= dict(zip(frozen.steps[0].components, frozen.written[0], strict=True))
    vectors |= {frozen.steps[1].components[0]: frozen.written[1][0]}
    vectors |= {frozen.steps[1].bias: frozen.steps[1].constant}

    def side(weight, bias, pos, part):
        if part.label in ("b_Q", "b_K"):
            return block.ln1.b @ weight + bias
        x = vectors[part][pos]
        return ((x - x.mean()) / scale[pos] * block.ln1.w) @ weight

    for row, query_part in enumerate(found.query_parts):
        for column, key_part in enumerate(found.key_parts):
            q = side(attn.W_Q[2], attn.b_Q[2], query, query_part)
            k = side(attn.W_K[2], attn.b_K[2], key, key_part)
            slow = float((q @ k).detach()) / attn.W_Q.shape[-1] ** 0.5
            assert found.values[row, column] == pytest.approx(slow, abs=1e-10)


def planted(build):
    """Embeddings fill one half of the stream and queries read it; heads write the other, which keys read."""
    model = build(order="ss", positions="shortformer").double()
    first, second = model.blocks[0].attn, model.blocks[1].attn
    with torch.no_grad():
        model.embed.W_E[:, 16:] = 0
        model.pos_embed.W_pos[:, 16:] = 0
        first.W_O[:, :, :16] = 0
        first.W_O[[0, 2, 3]] = 0
        second.W_Q[:, 16:] = 0
        second.W_K[:, :16] = 0
    return model


def test_a_planted_previous_head_is_all_of_the_score_through_keys(build):
    frozen = freeze(planted(build), IDS)
    found = score_parts(frozen, Head(1, 1), 6, 2, versus="mean")
    direct = found.by_key[[part.kind != "head" for part in found.key_parts]]
    assert found.shares.K - found.total == pytest.approx(0, abs=1e-12)
    assert found.shares[0] == found.shares.Q == found.shares.both == 0
    assert not direct.any()
    assert found.side("key", 1)["part"].tolist() == ["0.1"]
    # Nothing else reads the head, so taking it out of the model does what the sum says.
    direction = score_direction(frozen, Head(1, 1), 6, 2, versus="mean")
    check = verify(frozen, direction, Part("0.1", "head", 0, 1))
    assert check.contribution == pytest.approx(found.total, abs=1e-12)
    assert check.unfrozen == pytest.approx(check.contribution, abs=1e-12)
    best = top_paths(frozen, direction, k=1).paths[0]
    assert best.label == "embed → 0.1"


def test_which_side_a_component_enters_names_the_composition(build):
    found = score_parts(freeze(double(build, DEEP), IDS), Head(1, 0), 7, 2)
    table = found.table()
    on_query, on_key = (table[f"{side}_kind"].isin(["head", "mlp"]) for side in ("query", "key"))
    expected = np.select([on_query & on_key, on_query, on_key], ["both", "Q", "K"], "direct")
    assert (table["composition"] == expected).all()
    sums = table.groupby("composition")["value"].sum()
    assert {kind: pytest.approx(value) for kind, value in found.shares._asdict().items()} == dict(
        sums
    )


@pytest.mark.parametrize("name", [DEEP, "RMS, rotary, grouped, gated", "post-norm"])
def test_a_contrast_is_the_difference_of_scores_pair_by_pair(build, name):
    frozen = freeze(double(build, name), IDS)
    maps = query_key(frozen, Head(1, 3))
    each = {key: score_parts(frozen, maps, 5, key).values for key in range(6)}
    against = score_parts(frozen, maps, 5, 2, versus=4)
    np.testing.assert_allclose(against.values, each[2] - each[4], atol=1e-10)
    mean = score_parts(frozen, maps, -3, 2, versus="mean")
    others = sum(each[key] for key in each if key != 2) / 5
    np.testing.assert_allclose(mean.values, each[2] - others, atol=1e-10)
    # What is the same for all keys is in no contrast.
    assert abs(mean.constant) < 1e-10 * mean.absolute


def test_what_softmax_does_not_see_is_named(build):
    """Without rotary positions a bias of keys is one number for all of them; with them it is a kernel."""
    for name, same in ((DEEP, ["b_K"]), ("RMS, rotary, grouped, gated", [])):
        found = score_parts(freeze(double(build, name), IDS), Head(1, 0), 7, 2)
        named = [
            part.label
            for part, is_same in zip(found.key_parts, found.is_constant, strict=True)
            if is_same
        ]
        assert named == same
    alone = score_parts(freeze(double(build, DEEP), IDS), Head(1, 0), 7, 2)
    place = [part.label for part in alone.key_parts].index("b_K")
    assert alone.constant == pytest.approx(alone.by_key[place])
    assert alone.by("kind").is_constant.sum() == 0  # put together with biases that do vary


@pytest.mark.parametrize("group", ["component", "layer", "kind"])
def test_putting_parts_together_keeps_every_sum(build, group):
    whole = score_parts(freeze(double(build, DEEP), IDS), Head(1, 1), 6, 1, versus="mean")
    found = whole.by(group)
    assert found.shares == pytest.approx(whole.shares, abs=1e-12)
    assert found.residual == whole.residual
    for k in (0, 3, 10_000):
        assert found.top(k)["value"].sum() == pytest.approx(whole.values.sum(), abs=1e-10)
        assert found.side("key", k)["value"].sum() == pytest.approx(whole.values.sum(), abs=1e-10)
    sizes = found.top(5)["value"].abs().iloc[:5]
    assert sizes.is_monotonic_decreasing and sizes.max() == np.abs(found.values).max()
    labels = {part.label for part in found.key_parts}
    expected = {"component": "0.1", "layer": "attn 0", "kind": "heads"}[group]
    assert expected in labels and ("0.1" in labels) == (group == "component")


def test_a_direction_measures_the_score_of_any_run(build):
    model = double(build, DEEP)
    frozen = freeze(model, IDS)
    direction = score_direction(frozen, Head(1, 2), 6, 3, versus="mean")
    assert direction.n_steps == 2 and direction.sites == (Site("scores", 1),)
    assert direction.measure(run(model, IDS, sites=direction.sites)) == direction.total
    other = [5, *IDS[1:]]
    changed = score_parts(freeze(model, other), Head(1, 2), 6, 3, versus="mean")
    measured = direction.measure(run(model, other, sites=direction.sites))
    assert measured == pytest.approx(changed.total, abs=1e-12)


def test_keys_outside_the_window_have_no_score_and_are_in_no_mean():
    model = model_of("gemma2", "float64")
    ids = (IDS * 3)[:20]
    frozen = freeze(model, ids)
    maps = query_key(frozen, Head(0, 1))
    assert int(maps.is_visible[19].sum()) == 16
    with pytest.raises(PromptError, match="it sees 4 to 19"):
        score_parts(frozen, maps, 19, 3)
    found = score_parts(frozen, maps, 19, 6, versus="mean")
    scores = run(model, ids, sites=["scores"])["scores.0"][0, 1, 19]
    seen = [key for key in range(4, 20) if key != 6]
    assert found.total == pytest.approx(float(scores[6] - scores[seen].mean()), abs=1e-10)
    assert abs(found.residual) < 1e-10


def test_smollm2_says_why_a_head_looks_with_its_cancellation_in_sight(smollm2):
    frozen = freeze(smollm2, "When Mary and John went to the store, John gave a drink to")
    maps = query_key(frozen, Head(17, 4))
    found = score_parts(frozen, maps, -1, 1, versus="mean")
    assert abs(found.residual) < 1e-4 * np.abs(found.values).max()
    assert found.cancellation > 1 and len(found.by("layer").key_parts) == 35
    for side in ("query", "key"):
        direction = score_direction(frozen, maps, -1, 1, side=side, versus="mean")
        orders = order_spectrum(frozen, direction)
        assert abs(orders.residual) < 1e-4 * np.abs(orders.orders).max()


def test_what_has_no_score_is_refused_by_name(build):
    frozen = freeze(double(build, DEEP), IDS)
    head = Head(1, 0)
    for query, key, versus, message in (
        (3, 4, None, "does not see key 4"),
        (3, 1, 7, "does not see key 7"),
        (8, 1, None, "no position 8"),
        (3, -9, None, "no position -9"),
        (3, 1, 1, "versus itself"),
        (3, 1, "max", "'max'"),
        (0, 0, "mean", "sees key 0 alone"),
    ):
        with pytest.raises(PromptError, match=message):
            score_parts(frozen, head, query, key, versus=versus)
        with pytest.raises(PromptError, match=message):
            score_direction(frozen, head, query, key, versus=versus)
    with pytest.raises(SiteError, match=r"no head 2\.0"):
        score_parts(frozen, Head(2, 0), 3, 1)
    with pytest.raises(SiteError, match=r"no head 0\.4"):
        query_key(frozen, Head(0, 4))
    with pytest.raises(ConfigError, match="query, key"):
        score_direction(frozen, head, 3, 1, side="value")
    with pytest.raises(ConfigError, match="component, layer, kind"):
        score_parts(frozen, head, 3, 1).by("token")


def test_positions_that_act_in_unknown_ways_are_refused_by_name(build, monkeypatch):
    frozen = freeze(double(build, DEEP), IDS)
    monkeypatch.setattr(frozen.model, "cfg", _Other(frozen.model.cfg, positions="alibi"))
    with pytest.raises(UnsupportedError, match="'alibi'"):
        query_key(frozen, Head(0, 0))


def test_scores_that_the_maps_miss_are_refused(build, monkeypatch):
    """A bias by distance that nothing here knows of must not end in the parts of someone else."""
    model = double(build, "tied")
    frozen = freeze(model, IDS)
    slope = torch.arange(32.0, dtype=torch.float64)
    handle = model.hook_dict["blocks.0.attn.hook_attn_scores"].register_forward_hook(
        lambda module, inputs, scores: scores + slope[: scores.shape[-1]]
    )
    try:
        with pytest.raises(UnsupportedError, match="scores"):
            query_key(frozen, Head(0, 0))
    finally:
        handle.remove()


class _Other:
    """A config with one field changed."""

    def __init__(self, cfg, **changes):
        self._cfg, self._changes = cfg, changes

    def __getattr__(self, name):
        return self._changes[name] if name in self._changes else getattr(self._cfg, name)
