"""Training at a glance: the strongest head or pair of each kind at every checkpoint, for each series of them.

Where induction, copying and composition rise together is the phase change (Olsson et al. 2022, "In-context
Learning and Induction Heads").
"""

from collections.abc import Callable, Mapping
from html import escape
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.pictures.panels import PANEL_HEIGHT, split_series
from probes.report.results import Results
from workbench.figures.theme import CATEGORICAL, TEMPLATE

CAPTION = (
    "Each point is the largest value over all heads, or pairs of heads, of one checkpoint; composition is "
    "given above the mean of its chance. The largest of many lies above the mean of chance even where nothing "
    "is there: read the rise, not the level."
)


class Curve(NamedTuple):
    """One panel: what of a probe's rows it draws at each checkpoint."""

    title: str
    probe: str
    measure: str
    take: Callable[[pd.DataFrame], tuple[float, str]]


def _largest(rows: pd.DataFrame) -> tuple[float, str]:
    row = rows.loc[rows["value"].idxmax()]
    return float(row["value"]), _head(row)


def _above_chance(rows: pd.DataFrame) -> tuple[float, str]:
    excess = (rows["value"] - rows["null_mean"]).dropna()
    if not len(excess):
        return float("nan"), ""
    return float(excess.max()), _head(rows.loc[excess.idxmax()])


def _last_layer(rows: pd.DataFrame) -> tuple[float, str]:
    row = rows.loc[rows["layer"].astype(float).idxmax()]
    return float(row["value"]), str(row["item"])


def _only(rows: pd.DataFrame) -> tuple[float, str]:
    return float(rows["value"].iloc[0]), ""


def _head(row: pd.Series) -> str:
    name = "" if pd.isna(row["head"]) else f"{row['layer']}.{row['head']}"
    item = str(row["item"])
    return f"{item} → {name}" if item and item != name else name


CURVES = (
    Curve("induction, largest of all heads", "head-behaviours", "induction", _largest),
    Curve("previous token, largest of all heads", "head-behaviours", "previous-token", _largest),
    Curve("copying, largest of all heads", "copying-eigenvalues", "copying", _largest),
    Curve(
        "K-composition, farthest pair above chance", "composition", "K-composition", _above_chance
    ),
    Curve(
        "Q-composition, farthest pair above chance", "composition", "Q-composition", _above_chance
    ),
    Curve(
        "V-composition, farthest pair above chance", "composition", "V-composition", _above_chance
    ),
    Curve("loss after the last layer, nats", "logit-lens", "loss", _last_layer),
    Curve("in-context learning: late minus early loss", "in-context-learning", "score", _only),
)


def training_figure(results: Results) -> go.Figure | None:
    """Panels of CURVES over the steps of every series; None where there is no series or no curve."""
    drawn = []
    for curve in CURVES:
        points = _points(curve, results.of_probe(curve.probe))
        if points:
            drawn.append((curve, points))
    return _drawn(drawn) if drawn else None


Points = Mapping[str, Mapping[int, tuple[float, str]]]


def _points(curve: Curve, tables: Mapping[str, pd.DataFrame]) -> Points:
    """By series and step."""
    _, series = split_series(tables)
    found: dict[str, dict[int, tuple[float, str]]] = {}
    for name, of in series.items():
        for step, table in of.items():
            rows = table[(table["measure"] == curve.measure) & table["value"].notna()]
            if curve.take is _last_layer:
                rows = rows[rows["layer"].notna()]
            # Beside heads a table may hold what a head would score that does nothing.
            rows = rows[rows["head"].notna()] if rows["head"].notna().any() else rows
            if len(rows):
                found.setdefault(name, {})[step] = curve.take(rows)
    return found


def _drawn(curves: list[tuple[Curve, Points]]) -> go.Figure:
    n_rows = -(-len(curves) // 2)
    names = list(dict.fromkeys(name for _, points in curves for name in points))
    steps = sorted({step for _, points in curves for of in points.values() for step in of})
    titles = [curve.title for curve, _ in curves]
    figure = make_subplots(
        rows=n_rows, cols=2, subplot_titles=titles, vertical_spacing=0.32 / n_rows
    )
    for at, (_, points) in enumerate(curves):
        where = {"row": 1 + at // 2, "col": 1 + at % 2}
        for name, of in points.items():
            plain = escape(name, quote=False)
            first = next(index for index, (_, held) in enumerate(curves) if name in held)
            figure.add_scatter(
                x=[str(step) for step in of],
                y=[value for value, _ in of.values()],
                text=[escape(which, quote=False) for _, which in of.values()],
                mode="lines+markers",
                name=plain,
                legendgroup=plain,
                showlegend=at == first,
                line={"color": CATEGORICAL[names.index(name) % len(CATEGORICAL)]},
                hovertemplate=f"{plain}, step %{{x}}: %{{y:.4g}}  %{{text}}<extra></extra>",
                **where,
            )
    figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=[str(step) for step in steps]
    )
    figure.update_xaxes(title_text="training step", row=n_rows)
    figure.update_annotations(font_size=13)
    return figure.update_layout(template=TEMPLATE, height=90 + PANEL_HEIGHT * n_rows)
