"""Drawings of paths: bars end at the total, small orders stay visible, each edge of a flow is drawn once."""

import numpy as np
import pytest

from tests.paths.test_frozen import IDS, double
from workbench.figures import flow_view, path_view
from workbench.figures.flow_view import flow_figure
from workbench.figures.path_view import SumBar, meter_bars, order_bars, score_map, shown_orders
from workbench.paths.directions import logit_direction
from workbench.paths.flow import path_flow
from workbench.paths.frozen import freeze

SPELLED = "a<b>&"


@pytest.fixture
def flow(build):
    frozen = freeze(double(build, "LN, learned, biases"), IDS)
    return path_flow(frozen, logit_direction(frozen, 2, pos=6))


def edges_of(figure):
    """What can be pointed at: (kind, head, query, key, value)."""
    return [
        tuple(row[:5]) for trace in figure.data if trace.name == "edges" for row in trace.customdata
    ]


def test_the_meter_ends_at_the_total_and_escapes_what_it_prints():
    bars = [SumBar(SPELLED, 2.0), SumBar("rest", -3.5), SumBar("bias", 0.5)]
    figure = meter_bars(bars, total=-1.0, name="the model", unit="logits")
    drawn = figure.data[0]
    assert sum(drawn.x[:-1]) == drawn.x[-1] == -1.0
    assert drawn.measure == ("relative",) * 3 + ("total",)
    assert drawn.y[0] == "a&lt;b&gt;&amp;"
    low, high = figure.layout.xaxis.range
    assert low < -1.5 and high > 2.0


@pytest.mark.parametrize("scale", path_view.SCALES)
def test_orders_run_up_to_the_total_in_either_scale(scale):
    values = np.array([0.5, 50.0, -49.0, 4.5, 1e-9, -1e-9])
    figure = order_bars(values, bias=0.25, total=6.25, unit="logits", scale=scale)
    bars, line = figure.data
    np.testing.assert_allclose(bars.customdata, values[:4])
    np.testing.assert_allclose(line.customdata[-1], 6.25)
    assert np.sign(bars.y).tolist() == np.sign(values[:4]).tolist()
    assert figure.layout.shapes[0].y0 == pytest.approx(line.y[-1])
    low, high = figure.layout.yaxis.range
    assert low < min(bars.y) and high > max(bars.y)


def test_on_the_logarithmic_scale_small_orders_are_seen_and_ticks_say_the_number():
    values = np.array([0.5, 50.0, -49.0])
    linear, log = (
        order_bars(values, bias=0.0, total=1.5, unit="logits", scale=scale).data[0].y
        for scale in ("linear", "log")
    )
    assert log[0] / log[1] > 10 * linear[0] / linear[1]
    axis = order_bars(values, bias=0.0, total=1.5, unit="logits", scale="log").layout.yaxis
    ticks = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert ticks["0"] == 0 and ticks["-10"] == -ticks["10"] and {"1", "30"} <= ticks.keys()
    assert ticks["10"] < log[1] < 1.2 * ticks["30"]


def test_negligible_orders_are_left_out_but_never_the_last_that_counts():
    assert shown_orders(np.array([1.0, 0.0, 0.5, 1e-7])) == 3
    assert shown_orders(np.zeros(4)) == 4
    figure = order_bars(np.zeros(1), bias=0.0, total=0.0, unit="logits", scale="log")
    assert figure.data[0].y[0] == 0


def test_white_is_zero_in_the_map_of_a_score():
    values = np.array([[1.0, -4.0], [0.0, 2.0]])
    figure = score_map(values, ["q", SPELLED], ["k", "l"], unit="score")
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-4.0, 4.0)
    assert figure.data[0].y[1] == "a&lt;b&gt;&amp;"


def test_every_edge_of_a_flow_is_drawn_once_with_its_value(flow):
    drawn = flow_figure(flow, threshold=0.0)
    heads = [row for row in edges_of(drawn.figure) if row[0] == "head"]
    assert len(heads) == len(flow.values) == drawn.n_shown
    known = {
        (f"{flow.steps[step].split()[1]}.{head}", query, key): value
        for (step, head, query, key), value in zip(flow.places.tolist(), flow.values, strict=True)
    }
    for _, head, query, key, value in heads:
        assert known.pop((head, query, key)) == pytest.approx(value)
    assert not known


def test_lines_are_few_traces_whatever_the_number_of_edges(flow):
    figure = flow_figure(flow, threshold=0.0).figure
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) <= 3 * 2 * len(flow_view.WIDTHS)
    n_drawn = sum(int(np.isnan(trace.x).sum()) for trace in lines)
    n_others = np.count_nonzero(np.nan_to_num(flow.mlp)) + np.count_nonzero(flow.skip)
    assert n_drawn == len(flow.values) + n_others
    assert {trace.line.color for trace in lines} <= {path_view.UP, path_view.DOWN}


def test_the_threshold_is_a_share_of_the_largest_edge_and_most_caps_them(flow):
    size = np.abs(flow.values).max()
    drawn = flow_figure(flow, threshold=0.3)
    assert drawn.n_shown == int((np.abs(flow.values) >= 0.3 * size).sum())
    assert drawn.smallest == pytest.approx(0.3 * size)
    assert flow_figure(flow, threshold=0.0, most=5).n_shown == 5
    assert flow_figure(flow, threshold=1.0).n_shown == 1


def test_a_network_without_layers_has_places_and_no_edges(build):
    frozen = freeze(double(build, "no layers"), IDS)
    flow = path_flow(frozen, logit_direction(frozen, 2))
    drawn = flow_figure(flow, threshold=0.05)
    assert drawn.n_shown == 0 and not edges_of(drawn.figure)
    assert len(drawn.figure.data[0].x) == len(IDS)
