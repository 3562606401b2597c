"""What the figures of a circuit draw is what they were given, and token texts stay text."""

import numpy as np
import pytest

from workbench.figures.circuit_view import (
    DECADES,
    MAX_NULL_POINTS,
    eigenvalue_plane,
    entries_map,
    offset_curves,
    singular_bars,
)
from workbench.figures.null_view import against_null
from workbench.figures.tokens import figure_text, visible

VALUES = np.array([100 + 0j, 10j, -1 + 0j, 1e-9 + 0j, 0j])


def placed(trace) -> np.ndarray:
    return np.asarray(trace.x) + 1j * np.asarray(trace.y)


def test_a_decade_is_the_same_step_whatever_the_angle():
    figure = eigenvalue_plane(VALUES, title="t", unit="logits")
    positive, other = placed(figure.data[0]), placed(figure.data[1])
    # Sizes 100 and 1e-9 are right of the centre; 10 i, -1 and 0 are not.
    np.testing.assert_allclose(positive, [1, 0], atol=1e-6)
    np.testing.assert_allclose(other, [1j * (1 - 1 / DECADES), -(1 - 2 / DECADES), 0], atol=1e-6)


def test_a_linear_radius_is_the_value_over_the_largest():
    figure = eigenvalue_plane(VALUES, title="t", unit="logits", radius="linear")
    drawn = np.concatenate([placed(trace) for trace in figure.data])
    np.testing.assert_allclose(sorted(abs(drawn)), sorted(abs(VALUES) / 100), atol=1e-6)


def test_the_hover_says_the_eigenvalue_itself():
    figure = eigenvalue_plane(VALUES, title="t", unit="logits")
    np.testing.assert_allclose(figure.data[0].customdata[0], [100, 0, 100])
    assert "logits" in figure.data[0].hovertemplate


def test_the_null_is_drawn_behind_and_thinned():
    null = np.exp(1j * np.arange(10 * MAX_NULL_POINTS)).reshape(10, -1)
    figure = eigenvalue_plane(VALUES, null, title="t", unit="u")
    assert figure.data[0].name == "random circuits"
    assert len(figure.data[0].x) == MAX_NULL_POINTS
    assert len(figure.data) == 3


def test_rings_are_powers_of_ten_within_the_plane():
    figure = eigenvalue_plane(np.array([250 + 0j]), title="t", unit="u")
    assert [note.text for note in figure.layout.annotations] == ["100", "10", "1", "0.1"]
    radii = [shape.x1 for shape in figure.layout.shapes]
    assert np.allclose(np.diff(radii), -1 / DECADES)
    assert 0 < min(radii) < max(radii) <= 1


@pytest.mark.parametrize("radius", ["log", "linear"])
def test_a_plane_of_nothing_still_draws(radius):
    figure = eigenvalue_plane(np.zeros(3, complex), title="t", unit="u", radius=radius)
    assert np.isfinite(placed(figure.data[1])).all()


def test_entries_keep_their_place_when_tokens_are_spelled_alike():
    values = np.arange(6.0).reshape(2, 3)
    figure = entries_map(
        values, [" a", " a"], ["x", "<b>", "x"], axes=("source", "out"), title="t", unit="logits"
    )
    cells = figure.data[0]
    np.testing.assert_array_equal(cells.z, values)
    assert cells.x is None and cells.y is None
    assert list(figure.layout.yaxis.ticktext) == ["·a", "·a"]
    assert cells.customdata[1][1].tolist() == ["·a", "&lt;b&gt;"]
    assert (cells.zmin, cells.zmax) == (-5, 5)
    assert figure.layout.xaxis.title.text == "out"


def test_the_curves_of_offsets_are_named_and_the_chosen_offset_is_marked():
    offsets = np.arange(4)
    curves = {"content-free": np.ones(4), "b": np.zeros(4)}
    figure = offset_curves(offsets, curves, title="t", unit="score", chosen=2)
    assert [line.name for line in figure.data] == ["content-free", "b"]
    assert figure.layout.shapes[0].x0 == 2


def test_the_hover_of_a_singular_value_says_its_share_of_the_squares():
    figure = singular_bars(np.array([2.0, 1.0, 0.0]), title="t", unit="u")
    np.testing.assert_allclose(figure.data[0].customdata, [0.8, 1, 1])
    assert figure.data[0].x.tolist() == [1, 2, 3]


def test_the_band_of_chance_is_two_deviations_each_way():
    measures = {"energy": np.array([0.2, 0.9]), "rank": np.array([3.0, 5.0])}
    figure = against_null(measures, {"energy": (0.5, 0.1)}, ["0.0", "0.1"], "0.1", title="t")
    band, line = figure.layout.shapes
    assert (band.x0, band.x1) == pytest.approx((0.3, 0.7))
    assert line.x0 == 0.5
    chosen = [trace for trace in figure.data if trace.name == "head 0.1"]
    assert [trace.x.tolist() for trace in chosen] == [[0.9], [5.0]]


def test_no_character_of_a_token_is_unseen():
    assert visible(" a\n\tb\u00a0") == "·a↵⇥b⍽"
    assert visible("\u200bx\u0007") == "⟨200B⟩x⟨0007⟩"
    assert visible("") == "∅"
    assert figure_text("<" + "a" * 30) == "&lt;" + "a" * 22 + "…"


def test_tokens_are_written_as_the_attention_viewer_writes_them():
    from workbench.figures.attention_view import VIEWER_JS

    for sign in ("·", "↵", "⇥", "␍", "⍽", "∅"):
        assert f'"{sign}"' in VIEWER_JS
