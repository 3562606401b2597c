"""The composition figures say which pair a cell and an edge are, and how strong."""

import numpy as np
import pandas as pd
import pytest

from workbench.figures.composition_view import WIDTHS, composition_maps, head_graph

LABELS = ["0.0", "0.1", "1.0", "1.1"]
HEADS = [(0, 0), (0, 1), (1, 0), (1, 1)]
NAN = np.nan
MATRIX = np.array([[NAN, NAN, 0.1, -0.3], [NAN, NAN, 0.2, 0.0], [NAN] * 4, [NAN] * 4])


def edges(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["through", "writer", "reader", "excess"])
    for end in ("writer", "reader"):
        table[f"{end}_layer"] = [int(label.split(".")[0]) for label in table[end]]
        table[f"{end}_head"] = [int(label.split(".")[1]) for label in table[end]]
    return table


def test_only_pairs_that_can_compose_are_shown_and_white_is_chance():
    figure = composition_maps({"Q": MATRIX, "K": 2 * MATRIX}, LABELS, title="t", unit="u")
    first, second = figure.data
    assert (first.name, second.name) == ("Q", "K")
    assert (first.y, first.x) == (("0.0", "0.1"), ("1.0", "1.1"))
    np.testing.assert_allclose(second.z, [[0.2, -0.6], [0.4, 0.0]])
    scale = figure.layout.coloraxis
    assert (scale.cmin, scale.cmax) == (-0.6, 0.6)
    assert dict(scale.colorscale)[0.5] == "#ffffff"


def test_head_labels_are_words_not_numbers():
    figure = composition_maps({"K": MATRIX}, LABELS, title="t", unit="u")
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "category"


def test_an_edge_runs_from_its_writer_to_its_reader():
    figure = head_graph(edges(("K", "0.1", "1.0", 0.2)), HEADS, value="excess", title="t", unit="u")
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert (line.x[0], line.y[0]) == (1, 0)
    assert (line.x[-2], line.y[-2]) == (0, 1)
    assert np.isnan(line.x[-1])


def test_a_stronger_edge_is_thicker():
    rows = edges(("K", "0.0", "1.0", 0.05), ("K", "0.1", "1.1", 0.5))
    figure = head_graph(rows, HEADS, value="excess", title="t", unit="u")
    widths = {trace.line.width: trace.x[0] for trace in figure.data if trace.mode == "lines"}
    assert widths == {WIDTHS[0]: 0, WIDTHS[-1]: 1}


def test_the_middle_of_an_edge_names_its_pair():
    rows = edges(("K", "0.0", "1.0", 0.05), ("V", "0.0", "1.0", 0.1))
    figure = head_graph(rows, HEADS, value="excess", title="t", unit="u")
    middles = {
        trace.name: trace for trace in figure.data if trace.name and trace.name.startswith("thr")
    }
    assert middles["through V"].customdata.tolist() == [["V", "0.0", "1.0", 0.1]]
    # The edges of one pair do not lie on each other.
    assert middles["through V"].x[0] != middles["through K"].x[0]
    assert not middles["through Q"].showlegend


@pytest.mark.parametrize("layers", [2, 30])
def test_a_graph_without_edges_shows_the_heads(layers):
    heads = [(layer, head) for layer in range(layers) for head in range(9)]
    figure = head_graph(edges(), heads, value="excess", title="t", unit="u")
    nodes = figure.data[-1]
    assert len(nodes.x) == 9 * layers
    assert nodes.customdata[-1] == f"{layers - 1}.8"
    assert figure.layout.height <= 1000
