import re

import numpy as np
import pytest

from workbench.figures import theme
from workbench.figures.attention_view import VIEWER_JS
from workbench.figures.theme import head_map, plotly_scale, symmetric_limit, token_labels


def test_zero_is_white_and_the_limits_are_symmetric():
    cells = head_map(np.array([[0.2, -0.7], [0.0, 0.5]]), title="t", unit="u").data[0]
    assert (cells.zmin, cells.zmax) == (-0.7, 0.7)
    scale = dict((place, colour) for place, colour in cells.colorscale)
    assert scale[0.5] == "#ffffff"


def test_every_cell_is_named_as_layer_dot_head():
    figure = head_map(np.zeros((2, 3)), title="t", unit="attention")
    assert figure.data[0].hovertemplate.startswith("head %{y}.%{x}")
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("head", "layer")
    assert figure.layout.yaxis.autorange == "reversed"


def test_all_zero_and_all_missing_maps_still_draw():
    assert head_map(np.zeros((2, 2)), title="t", unit="u").data[0].zmax == 1
    assert head_map(np.full((2, 2), np.nan), title="t", unit="u").data[0].zmax == 1


@pytest.mark.parametrize("size", [0.25, 3.0])
def test_the_limit_is_the_largest_finite_size(size):
    assert symmetric_limit(np.array([-size, size / 2, np.nan, np.inf])) == size


def test_text_from_outside_is_not_read_as_markup():
    figure = head_map(np.zeros((1, 1)), title="<b>x</b>", unit="<i>")
    assert figure.layout.title.text == "&lt;b&gt;x&lt;/b&gt;"
    assert "<i>" not in figure.data[0].hovertemplate


def test_repeated_tokens_keep_their_own_labels():
    assert token_labels(["a", "<b>", "a"]) == ["0·a", "1·&lt;b&gt;", "2·a"]


def test_a_scale_runs_from_the_first_anchor_to_the_last():
    assert plotly_scale(["#000000", "#777777", "#ffffff"]) == [
        [0, "#000000"],
        [0.5, "#777777"],
        [1, "#ffffff"],
    ]


def luminance(colour: str) -> float:
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return float(np.dot([0.2126, 0.7152, 0.0722], np.array([r, g, b]) ** 2.2))


def test_depth_reads_as_size_without_hue():
    """Luminance falls steadily from zero outwards: the scales survive grey print and colour blindness."""
    falling = [luminance(colour) for colour in theme.SEQUENTIAL]
    assert falling == sorted(falling, reverse=True)
    sizes = [luminance(colour) for colour in theme.DIVERGING]
    assert sizes[:6] == sorted(sizes[:6])
    assert sizes[5:] == sorted(sizes[5:], reverse=True)


def test_the_viewer_draws_with_the_same_colours():
    script = VIEWER_JS
    lights = re.findall(r"light: \[([^\]]*)\]", script)
    anchors = [tuple(re.findall(r"#[0-9a-f]{6}", light)) for light in lights]
    assert anchors == [theme.SEQUENTIAL, theme.DIVERGING]
