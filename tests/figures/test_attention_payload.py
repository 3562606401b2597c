import dataclasses
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.attention import AttentionMaps
from workbench.errors import ConfigError, SiteError
from workbench.figures.attention_view.payload import (
    BUDGET_BYTES,
    decode_layer,
    encode_layer,
    exact_cross,
    view_meta,
)
from workbench.heads.behaviours import Badge
from workbench.sites import Head


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def maps_of(
    *layers: np.ndarray | None, kind: str = "pattern", causal: bool = True
) -> AttentionMaps:
    shape = next(layer.shape for layer in layers if layer is not None)
    queries, keys = ([f"t{i}" for i in range(n)] for n in shape[1:])
    return AttentionMaps(layers, tuple(queries), tuple(keys), kind, "test", causal)


def patterns(n_heads: int, n: int, temperature: float, *, seed: int = 0) -> np.ndarray:
    """Causal patterns of random scores: the larger the temperature, the sharper."""
    scores = np.random.default_rng(seed).normal(size=(n_heads, n, n)) * temperature
    return softmax(np.where(np.tri(n, dtype=bool), scores, -np.inf))


def tolerance(values: np.ndarray, header: dict) -> np.ndarray:
    """The bound that `quantise` states, per cell."""
    limits = np.array(header["limits"])[:, None, None]
    levels = header["levels"]
    if header["scale"] == "linear":
        return limits / (2 * levels) + 1e-6 + 0 * values
    roots = np.sqrt(np.abs(values) / np.where(limits > 0, limits, 1))
    return limits * (roots / levels + 1 / (4 * levels**2)) + 1e-6


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 40),
    temperature=st.floats(0, 20),
    causal=st.booleans(),
    kind=st.sampled_from(["pattern", "value-weighted", "scores", "difference"]),
)
def test_decoding_returns_the_values_within_the_stated_bound(seed, n, temperature, causal, kind):
    values = patterns(3, n, temperature, seed=seed)
    if not causal:
        values = values[:, ::-1].copy()
    if kind in ("scores", "difference"):
        values = values - values[::-1]
    if kind == "value-weighted":
        values = values * 7
    header, decoded = decode_layer(encode_layer(maps_of(values, kind=kind, causal=causal), 0))
    exists = np.broadcast_to(np.tri(n, dtype=bool), values.shape) if causal else values == values
    assert np.isnan(decoded[~exists]).all()
    error = np.abs(decoded - values)[exists]
    assert (error <= tolerance(values, header)[exists]).all()


def test_zero_and_the_limit_are_coded_exactly():
    values = np.array([[[-4.0, 0.0], [1.0, 4.0]]], np.float32)
    _, decoded = decode_layer(encode_layer(maps_of(values, kind="scores", causal=False), 0))
    assert decoded[0, 0].tolist() == [-4.0, 0.0]
    assert decoded[0, 1, 1] == 4.0


def test_cells_that_are_not_finite_come_back_as_missing():
    values = np.array([[[0.5, np.nan], [-np.inf, 0.25]]], np.float32)
    _, decoded = decode_layer(encode_layer(maps_of(values, kind="scores", causal=False), 0))
    assert np.isnan(decoded[0]).tolist() == [[False, True], [True, False]]


def test_queries_and_keys_may_differ_in_number():
    values = softmax(np.random.default_rng(0).normal(size=(2, 3, 5)))
    header, decoded = decode_layer(encode_layer(maps_of(values, causal=False), 0))
    assert decoded.shape == (2, 3, 5)
    assert (np.abs(decoded - values) <= tolerance(values, header)).all()


def test_scores_are_coded_linearly_and_keep_their_levels_at_a_known_price():
    scores = np.random.default_rng(0).normal(size=(12, 512, 512)).astype(np.float32)
    payload = encode_layer(maps_of(scores, kind="scores"), 0)
    header, _ = decode_layer(payload)
    assert header["scale"] == "linear"
    assert header["levels"] >= 15
    assert len(payload) <= 3 * BUDGET_BYTES


@pytest.mark.parametrize("temperature", [0, 0.1, 0.3, 1, 2, 4, 8])
def test_twelve_heads_at_512_tokens_stay_below_300_kilobytes(temperature):
    """From uniform to one-hot; noise in the middle is the hardest to compress."""
    payload = encode_layer(maps_of(patterns(12, 512, temperature)), 0)
    header, _ = decode_layer(payload)
    assert len(payload) <= BUDGET_BYTES < 300_000
    assert header["levels"] >= 15


def test_a_layer_that_fits_keeps_all_levels():
    assert decode_layer(encode_layer(maps_of(patterns(12, 64, 1)), 0))[0]["levels"] == 254
    signed = patterns(4, 32, 1) - patterns(4, 32, 1, seed=1)
    assert decode_layer(encode_layer(maps_of(signed, kind="difference"), 0))[0]["levels"] == 127


def test_a_diffuse_head_is_coded_as_finely_as_a_sharp_one():
    values = np.stack([np.eye(64), np.full((64, 64), 1e-3)]).astype(np.float32)
    header, decoded = decode_layer(encode_layer(maps_of(values, causal=False), 0))
    assert header["limits"] == pytest.approx([1, 1e-3])
    np.testing.assert_allclose(decoded[1], values[1], rtol=1e-6)


def test_the_same_maps_give_the_same_bytes():
    maps = maps_of(patterns(2, 16, 1))
    assert encode_layer(maps, 0) == encode_layer(maps, 0)


def test_the_exact_cross_is_the_row_and_the_column_without_the_future():
    values = patterns(2, 5, 1)
    cross = exact_cross(maps_of(values), 0, 1, 2)
    assert cross["row"] == [*map(float, values[1, 2, :3]), None, None]
    assert cross["column"] == [None, None, *map(float, values[1, 2:, 2])]


def test_the_exact_cross_of_unequal_sides_is_empty_where_a_side_ends():
    maps = maps_of(softmax(np.zeros((1, 2, 4))), causal=False)
    assert exact_cross(maps, 0, 0, 3) == {"row": [], "column": [0.25, 0.25]}


def test_meta_describes_layers_tokens_and_limits():
    meta = view_meta(maps_of(patterns(2, 3, 1), None, patterns(1, 3, 1)))
    assert meta["layers"] == [2, 0, 1]
    assert (meta["causal"], meta["signed"], meta["limit"]) == (True, False, 1.0)
    assert meta["query_tokens"] == ["t0", "t1", "t2"]
    assert meta["unit"] == "attention"


def test_badges_of_head_scores_and_plain_records_read_alike():
    maps = maps_of(patterns(2, 3, 1))
    plain = {"0.1": [{"behaviour": "induction", "value": 0.93, "chance": 0.05}]}
    ours = {Head(0, 1): [Badge("induction", 0.93, 0.05)]}
    expected = {"label": "induction", "behaviour": "induction", "value": 0.93, "chance": 0.05}
    assert view_meta(maps, plain)["badges"] == {"0.1": [expected]}
    assert view_meta(maps, ours) == view_meta(maps, plain)


def test_unknown_heads_layers_and_positions_are_refused_by_name():
    maps = maps_of(patterns(2, 3, 1), None)
    with pytest.raises(SiteError, match=r"0\.7.*\[2, 0\]"):
        view_meta(maps, {"0.7": [{"label": "x", "value": 1}]})
    with pytest.raises(SiteError, match="layers run from 0 to 1, not 2"):
        encode_layer(maps, 2)
    with pytest.raises(SiteError, match="layer 1 has no attention"):
        encode_layer(maps, 1)
    with pytest.raises(SiteError, match="heads 0 to 1, not 2"):
        exact_cross(maps, 0, 2, 0)
    with pytest.raises(SiteError, match="positions run from 0 to 2, not 3"):
        exact_cross(maps, 0, 0, 3)


def test_tokens_that_do_not_fit_the_maps_are_refused():
    maps = dataclasses.replace(maps_of(patterns(2, 3, 1)), key_tokens=("only", "two"))
    with pytest.raises(ConfigError, match=r"shape \[2, 3, 3\].*\[head, 3, 2\]"):
        view_meta(maps)


def test_other_bytes_are_not_taken_for_a_payload():
    with pytest.raises(ConfigError, match="not an attention payload"):
        decode_layer(gzip.compress(b"something else"))
