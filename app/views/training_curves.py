"""A run's curves: losses and penalties over steps, and what was measured of the network beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.trainings import loss_name
from workbench.figures.theme import CATEGORICAL, TEMPLATE

MAX_POINTS = 600
PENALTY = "penalty "
NOT_MEASURED = ("step", "tokens", "seconds", "train_loss")
# Curves that belong into one picture, in this order; what is named nowhere gets a picture of its own.
TOGETHER: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Modularity", "Newman's Q", ("Q", "Q shuffled mean")),
    ("Modularity over chance", "z", ("Q z",)),
    ("Wiring", "length", ("wiring length",)),
    ("Mean wire", "length", ("mean wire length",)),
    ("Induction", "score", ("induction", "induction score")),
    ("Composition", "score − chance", ("K-composition", "K-composition excess")),
    ("Accuracy", "share", ("train_accuracy", "test_accuracy", "accuracy", "repeats_accuracy")),
    ("R²", "1 = exact", ("train_R2", "test_R2")),
)
SPOKEN = {
    "train_loss": "training",
    "test_loss": "validation",
    "loss": "validation",
    "repeats_loss": "repeats",
    "Q shuffled mean": "shuffled weights",
    "train_accuracy": "training",
    "test_accuracy": "validation",
    "accuracy": "validation",
    "repeats_accuracy": "repeats",
    "train_R2": "training",
    "test_R2": "validation",
}


def losses(
    table: pd.DataFrame,
    *,
    is_log: bool,
    at: int | None = None,
    other: tuple[str, pd.DataFrame] | None = None,
) -> go.Figure:
    """Training and validation loss, and each penalty as it is added to the loss.

    Args:
        at: the step that is looked at.
        other: name and measurements of a second run, drawn dashed.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    names = loss_columns(table)
    if not len(table) and other is None:
        return blank("")
    for name in names:
        line = {"color": _colour(name, names), "width": 2}
        figure.add_scatter(**_line(table, name, is_log), line=line)
    if other is not None:
        label, second = other
        for name in [
            name for name in loss_columns(second) if name in ("train_loss", loss_name(second))
        ]:
            line = {"color": _colour(name, loss_columns(second)), "width": 1.6, "dash": "dash"}
            drawn = _line(second, name, is_log)
            figure.add_scatter(**drawn | {"name": f"{drawn['name']}, {label}"}, line=line)
    figure.update_layout(
        height=400, hovermode="x unified", uirevision="losses", margin={"t": 34, "r": 12}
    )
    figure.update_xaxes(title_text="step", rangemode="tozero")
    figure.update_yaxes(
        title_text="loss",
        type="log" if is_log else "linear",
        exponentformat="power",
        minorloglabels="complete",
    )
    _mark(figure, at)
    return figure


def _colour(name: str, names: Sequence[str]) -> str:
    """The same for training and validation of every run, whatever else it has."""
    order = names.index(name) if name in names else 0
    return CATEGORICAL[order % len(CATEGORICAL)]


def loss_columns(table: pd.DataFrame) -> list[str]:
    """What belongs to the loss: that of training first, each penalty last."""
    own = [name for name in ("train_loss", loss_name(table), "repeats_loss") if name in table]
    return [*own, *(name for name in table if str(name).startswith(PENALTY))]  # type: ignore[list-item]


def measures(table: pd.DataFrame, *, at: int | None = None) -> go.Figure | None:
    """Small curves of everything else that was measured; None where there is nothing."""
    pictures = _pictures(table)
    if not pictures:
        return None
    n_columns = min(3, len(pictures))
    n_rows = -(-len(pictures) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[title for title, _, _ in pictures],
        horizontal_spacing=0.075,
        vertical_spacing=0.2 / n_rows + 0.06,
    )
    for index, (_, unit, names) in enumerate(pictures):
        place = {"row": index // n_columns + 1, "col": index % n_columns + 1}
        for order, name in enumerate(names):
            # What a shuffle would score is grey, whatever it is compared with.
            is_null = "shuffled" in name
            colour = "#8a8f98" if is_null else CATEGORICAL[order % len(CATEGORICAL)]
            line = {"color": colour, "width": 1.8, "dash": "dot" if is_null else "solid"}
            drawn = _line(table, name, False) | {"showlegend": False}
            figure.add_scatter(**drawn, line=line, **place)
        figure.update_yaxes(title_text=unit, **place)
    figure.update_layout(template=TEMPLATE, height=56 + 190 * n_rows, uirevision="measures")
    figure.update_layout(margin={"t": 34, "l": 50, "r": 12, "b": 36})
    figure.update_annotations(font_size=12.5)
    _mark(figure, at)
    return figure


def blank(said: str) -> go.Figure:
    """Where there is nothing to draw, and why."""
    figure = go.Figure(layout={"template": TEMPLATE, "height": 60 if said else 400})
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    if said:
        figure.add_annotation(text=said, showarrow=False, x=0, xref="paper", xanchor="left")
    return figure


def _pictures(table: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    rest = [
        str(name) for name in table if name not in NOT_MEASURED and name not in loss_columns(table)
    ]
    found = []
    for title, unit, names in TOGETHER:
        if here := [name for name in names if name in rest and table[name].notna().any()]:
            found.append((title, unit, here))
    known = {name for _, _, names in TOGETHER for name in names}
    return found + [
        (name, "", [name]) for name in rest if name not in known and table[name].notna().any()
    ]


def _line(table: pd.DataFrame, name: str, is_log: bool) -> dict[str, Any]:
    chosen = _some(len(table))
    values = table[name].to_numpy(float)[chosen]
    if is_log:
        values = np.where(values > 0, values, np.nan)
    label = SPOKEN.get(name, name.removeprefix(PENALTY) if name.startswith(PENALTY) else name)
    return {
        "x": table["step"].to_numpy()[chosen],
        "y": values.astype(np.float32),
        "name": f"penalty: {label}" if name.startswith(PENALTY) else label,
        "mode": "lines+markers" if len(chosen) < 3 else "lines",
        "hovertemplate": "%{y:.4g}",
    }


def _some(n: int) -> Sequence[int] | np.ndarray:
    """Places of at most `MAX_POINTS` rows, the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).round().astype(int)) if n else []


def _mark(figure: go.Figure, at: int | None) -> None:
    if at is not None:
        figure.add_vline(x=at, line={"color": "#8a8f98", "width": 1, "dash": "dot"})
