"""What the lens grid and the residual figures draw is what the tables say."""

import numpy as np
import pandas as pd
import pytest

from workbench.figures.lens_view import lens_grid, lens_width, position_labels
from workbench.figures.residual_view import attribution_bars, cosine_map, norm_map, survival_map

TOKENS = ["the", " cat", "\n", "the"]


def lens_table(n_layers=3, tokens=TOKENS, k=4):
    """A lens table whose probability is layer + pos / 10 at rank 0."""
    rows = [
        {
            "layer": layer,
            "label": "embedding" if layer == 0 else f"layer {layer - 1}",
            "pos": pos,
            "token": token,
            "rank": rank,
            "id": rank,
            "predicted": f" <b>{layer}{pos}{rank}",
            "prob": (layer + pos / 10) / (rank + 1) / 10,
            "kl": float(n_layers - 1 - layer),
            "entropy": 1.0,
        }
        for layer in range(n_layers)
        for pos, token in enumerate(tokens)
        for rank in range(k)
    ]
    return pd.DataFrame(rows)


def test_every_cell_stands_at_its_layer_and_position():
    figure = lens_grid(lens_table())
    cells = figure.data[0]
    assert np.array(cells.z).shape == (3, 4)
    np.testing.assert_allclose(cells.z[2], [0.2, 0.21, 0.22, 0.23], rtol=1e-6)
    assert cells.text[1][3] == "·&lt;b&gt;130"
    assert list(cells.y) == ["embedding", "layer 0", "layer 1"]


def test_equal_tokens_keep_their_own_columns_and_whitespace_is_visible():
    labels = position_labels(lens_table()[lambda t: t["rank"] == 0].iloc[:4])
    assert labels == ["0 the", "1 ·cat", "2 ↵", "3 the"]
    assert len(set(lens_grid(lens_table()).data[0].x)) == 4


def test_hovering_lists_the_likeliest_in_their_order():
    hover = lens_grid(lens_table()).data[0].customdata[1][2]
    places = [hover.index(f"12{rank}") for rank in range(4)]
    assert places == sorted(places)
    assert "KL to the final 1 nats" in hover
    assert "<b>1" not in hover


@pytest.mark.parametrize("colour", ["kl", "rank"])
def test_other_colours_are_white_at_the_final_row(colour):
    ranks = np.array([[900, 5, 3, 0]] * 2 + [[0, 0, 0, 0]])
    cells = lens_grid(lens_table(), colour=colour, ranks=ranks).data[0]
    assert (cells.zmin, np.array(cells.z)[-1].tolist()) == (0, [0, 0, 0, 0])
    assert cells.zmax >= np.array(cells.z).max() > 0


def test_the_chosen_position_is_framed_and_one_outside_is_not():
    (frame,) = lens_grid(lens_table(), pos=2).layout.shapes
    assert (frame.x0, frame.x1) == (1.5, 2.5)
    assert not lens_grid(lens_table(), pos=4).layout.shapes


def test_many_positions_ask_for_more_width():
    assert lens_width(lens_table(tokens=TOKENS * 10)) > 5 * lens_width(lens_table())


def test_the_bars_add_up_to_the_sum_and_the_line_stands_at_the_total():
    table = pd.DataFrame({"part": ["1.4", "embed", "<b>x"], "value": [2.0, -0.5, 1.0]})
    figure = attribution_bars(table, total=2.5, name="logit")
    bars = figure.data[0]
    assert list(bars.measure) == ["relative"] * 3 + ["total"]
    assert bars.x[-1] == pytest.approx(sum(bars.x[:-1])) == 2.5
    assert figure.layout.shapes[0].x0 == 2.5
    assert figure.layout.yaxis.type == "category"  # "1.4" is a head, not a number
    assert bars.y[2] == "&lt;b&gt;x"
    low, high = figure.layout.xaxis.range
    assert low < 0 < 2.5 < high


def test_lengths_are_drawn_by_their_logarithm_and_nothing_is_blank():
    figure = norm_map(np.array([[1.0, 100.0], [0.0, 10.0]]), ["a", "b"], ["0 x", "1 y"])
    np.testing.assert_allclose(figure.data[0].z, [[0, 2], [np.nan, 1]])
    np.testing.assert_allclose(figure.data[0].customdata, [[1, 100], [0, 10]])


def test_a_stream_without_any_writing_still_draws():
    assert norm_map(np.zeros((2, 2)), ["a", "b"], ["0", "1"]).data[0].zmin == 0


def test_survival_is_white_at_one_and_says_what_it_cuts():
    cells = survival_map(np.array([[1.0, 7.0, -3.0]]), ["a"], ["0", "1", "2"]).data[0]
    assert (cells.zmin + cells.zmax) / 2 == 1
    np.testing.assert_allclose(cells.z, [[1, 2, 0]])
    np.testing.assert_allclose(cells.customdata, [[1, 7, -3]])


def test_cosines_are_white_at_zero():
    cells = cosine_map(np.eye(3), ["a", "b", "c"]).data[0]
    assert (cells.zmin, cells.zmax) == (-1, 1)
