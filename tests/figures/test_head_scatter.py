"""The scatter of heads shows each head at its measures, with its interval and chance."""

import numpy as np
import pandas as pd
import pytest

from workbench.figures.head_scatter import head_scatter


def head_table():
    rows = []
    for layer in range(2):
        for head in range(2):
            place = {"layer": layer, "head": head, "unit": "attention"}
            value = layer + head / 2
            common = {"low": value - 0.1, "high": value + 0.2, "chance": 0.05}
            rows += [
                {**place, "measure": "induction", "value": value, **common},
                {**place, "measure": "copying", "value": -value, "low": np.nan, "high": np.nan}
                | {"chance": 0.01 * layer},
            ]
    return pd.DataFrame(rows)


def test_every_head_stands_at_its_two_measures_with_its_interval():
    figure = head_scatter(head_table(), x="induction", y="copying", colour="copying", chosen="1.0")
    points, ring = figure.data
    assert list(points.text) == ["0.0", "0.1", "1.0", "1.1"]
    np.testing.assert_allclose(points.x, [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(points.y, [0, -0.5, -1, -1.5])
    np.testing.assert_allclose(points.error_x.array, [0.2] * 4)
    np.testing.assert_allclose(points.error_x.arrayminus, [0.1] * 4)
    assert points.error_y.visible is False
    assert (points.marker.cmin, points.marker.cmax) == (-1.5, 1.5)
    assert (ring.x[0], ring.y[0]) == (1, -1)
    assert points.type == "scatter"  # WebGL does not work under the page's security policy


def test_chance_is_a_line_on_each_axis():
    lines = head_scatter(head_table(), x="induction", y="copying").layout.shapes
    assert lines[0].x0 == 0.05
    assert lines[1].y0 == pytest.approx(0.005)


def test_a_head_that_lacks_a_measure_is_left_out_of_the_drawing_not_of_the_figure():
    table = head_table()
    table = table[~((table["measure"] == "copying") & (table["layer"] == 0))]
    points = head_scatter(table, x="induction", y="copying").data[0]
    assert np.isnan(np.array(points.y)[:2]).all()
    assert points.text[0] == "0.0"


def test_a_head_without_the_third_measure_is_hollow_and_keeps_its_place():
    table = head_table()
    table = table[~((table["measure"] == "copying") & (table["layer"] == 0))]
    filled, hollow = head_scatter(table, x="induction", y="induction", colour="copying").data
    assert list(filled.text) == ["1.0", "1.1"]
    assert list(hollow.text) == ["0.0", "0.1"]
    assert hollow.marker.color == "rgba(0,0,0,0)"
    np.testing.assert_allclose(hollow.x, [0, 0.5])
