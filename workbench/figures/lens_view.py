"""The logit lens as a grid: layers upward, positions to the right, in every cell the likeliest token.

Depth of colour is a probability, a distance in nats, or a rank; white is zero (rank: the first).
"""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float, Int

from workbench.figures.theme import SEQUENTIAL, TEMPLATE, plotly_scale
from workbench.figures.tokens import figure_text

Colour = Literal["prob", "kl", "rank"]
CELL_WIDTH, ROW_HEIGHT = 58, 23
MAX_HOVER_CELLS = 6000


class _Scale(NamedTuple):
    values: Float[np.ndarray, "layer pos"]
    high: float
    bar: dict[str, object]


def lens_grid(
    table: pd.DataFrame,
    *,
    colour: Colour = "prob",
    ranks: Int[np.ndarray, "layer pos"] | None = None,
    pos: int | None = None,
) -> go.Figure:
    """The grid of `LogitLens.table()`; hovering over a cell lists its likeliest tokens.

    Args:
        colour: of the cell's likeliest token the probability; the distance KL(final ‖ cell) in nats; or the
            rank (from 0) that `ranks` gives.
        ranks: of the model's final prediction in every cell.
        pos: a position to frame.
    """
    first = table[table["rank"] == 0]
    labels = first.drop_duplicates("layer")["label"].tolist()
    columns = position_labels(first[first["layer"] == first["layer"].min()])
    n_layers, n_pos = len(labels), len(columns)
    texts = [figure_text(text, 9) for text in first["predicted"]]
    scale = _scaled(first, colour, ranks, (n_layers, n_pos))
    figure = go.Figure(
        go.Heatmap(
            z=scale.values.astype(np.float32),
            x=columns,
            y=labels,
            text=_rows(texts, n_pos),
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=_rows(_hovers(table, ranks), n_pos),
            hovertemplate="%{y}, position %{x}<br>%{customdata}<extra></extra>",
            zmin=0,
            zmax=scale.high,
            colorscale=plotly_scale(SEQUENTIAL),
            colorbar={"thickness": 12, "len": min(1.0, 220 / (n_layers * ROW_HEIGHT)), **scale.bar},
            xgap=1,
            ygap=1,
        ),
        layout={
            "template": TEMPLATE,
            "height": n_layers * ROW_HEIGHT + 110,
            "margin": {"l": 74, "r": 10, "t": 12, "b": 70},
        },
    )
    figure.update_xaxes(
        type="category",
        showgrid=False,
        title={"text": "position and token read", "font": {"size": 12}},
        tickangle=-40,
        tickfont={"size": 11},
    )
    figure.update_yaxes(type="category", showgrid=False)
    if pos is not None and 0 <= pos < n_pos:
        figure.add_shape(**column_frame(pos))
    return figure


def column_frame(index: int) -> dict[str, object]:
    """A frame around one column, as plotly writes a shape."""
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": index - 0.5,
        "x1": index + 0.5,
        "y0": 0,
        "y1": 1,
        "line": {"color": "#e8590c", "width": 2},
    }


def lens_width(table: pd.DataFrame) -> int:
    """Pixels that the grid needs for its tokens to be read."""
    return 180 + CELL_WIDTH * table["pos"].nunique()


def position_labels(frame: pd.DataFrame) -> list[str]:
    """`3 ·the` for every row with `pos` and `token`: unique, so that plotly keeps equal tokens apart."""
    pairs = zip(frame["pos"], frame["token"], strict=True)
    return [f"{pos} {figure_text(token, 12)}" for pos, token in pairs]


def _scaled(
    first: pd.DataFrame,
    colour: Colour,
    ranks: Int[np.ndarray, "layer pos"] | None,
    shape: tuple[int, int],
) -> _Scale:
    if colour == "rank" and ranks is not None:
        ticks = [10**power for power in range(7)]
        where = np.log10(np.add(ticks, 1.0)).tolist()
        bar = {"tickvals": [0.0, *where], "ticktext": ["0", *(f"{t:,}" for t in ticks)]}
        logs = np.log10(ranks + 1.0)
        return _Scale(
            logs, max(1.0, float(logs.max())), {**_title("rank of the final token"), **bar}
        )
    values = first[colour if colour != "rank" else "prob"].to_numpy().reshape(shape)
    if colour == "kl":
        return _Scale(values, float(values.max()) or 1.0, _title("KL to the final, nats"))
    return _Scale(values, 1.0, _title("probability"))


def _title(text: str) -> dict[str, object]:
    return {"title": {"text": text, "side": "right"}}


def _hovers(table: pd.DataFrame, ranks: Int[np.ndarray, "layer pos"] | None) -> list[str]:
    """What hovering over each cell says: its likeliest tokens, fewer where there are many cells."""
    n_cells = int((table["rank"] == 0).sum())
    most = 10 if n_cells <= MAX_HOVER_CELLS else 3
    shown = table[table["rank"] < most]
    lines = [
        f"{prob:.3f}  {figure_text(text)}"
        for prob, text in zip(shown["prob"], shown["predicted"], strict=True)
    ]
    each = len(lines) // max(1, n_cells)
    cells = ["<br>".join(lines[i * each : (i + 1) * each]) for i in range(n_cells)]
    kls = table.loc[table["rank"] == 0, "kl"]
    said = [f"{cell}<br>KL to the final {kl:.3g} nats" for cell, kl in zip(cells, kls, strict=True)]
    if ranks is None:
        return said
    places = ranks.ravel().tolist()
    return [
        f"{text}<br>rank of the final token {rank:,}"
        for text, rank in zip(said, places, strict=True)
    ]


def _rows(cells: list[str], n_pos: int) -> list[list[str]]:
    return [cells[start : start + n_pos] for start in range(0, len(cells), n_pos)]
