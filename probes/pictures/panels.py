"""What figures of probes share: models side by side with chance behind them, checkpoints over their steps.

A label such as "attn-2l@500" is a checkpoint of attn-2l. Two or more of one model make a series: they are drawn
over their steps, and beside other models only the last of them stands: not even that where the model itself
does, with the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.theme import CATEGORICAL, SEQUENTIAL, TEMPLATE, plotly_scale

Tables = Mapping[str, pd.DataFrame]
CHANCE, GREY = "rgba(128,128,128,0.25)", "#7f7f7f"
# White would vanish on white paper.
DEPTHS = SEQUENTIAL[3:]
MOST_LINES, PANEL_HEIGHT = 12, 250


class Panel(NamedTuple):
    """One measure, in one panel: rows of a table that it shows, and what they are called."""

    title: str
    pick: Callable[[pd.DataFrame], pd.DataFrame]


def measure(name: str, site: str | None = None) -> Panel:
    """The panel of one measure, of one site where that is said; rows without a head or part are left out."""

    def pick(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[(table["measure"] == name) & table["layer"].notna()]
        return rows if site is None else rows[rows["site"] == site]

    return Panel(name if site is None else f"{name}, {site}", pick)


def split_series(
    tables: Tables,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[int, pd.DataFrame]]]:
    """Models to stand side by side, and the series of checkpoints among them, by step."""
    series: dict[str, dict[int, pd.DataFrame]] = {}
    for label, table in tables.items():
        name, at, step = label.rpartition("@")
        if at and step.isdecimal():
            series.setdefault(name, {})[int(step)] = table
    series = {name: dict(sorted(of.items())) for name, of in series.items() if len(of) > 1}
    left_out = {f"{name}@{step}" for name, of in series.items() for step in list(of)[:-1]}
    for name, of in series.items():
        last = list(of)[-1]
        if name in tables and tables[name].equals(of[last]):
            left_out.add(f"{name}@{last}")
    return {label: table for label, table in tables.items() if label not in left_out}, series


def compared(tables: Tables, panels: Sequence[Panel], title: str) -> list[go.Figure]:
    """All models side by side, then every series over its steps; panels without a row are left out."""
    side_by_side, series = split_series(tables)
    figures = []
    shown = [panel for panel in panels if any(len(panel.pick(t)) for t in side_by_side.values())]
    if shown:
        figures.append(strips(side_by_side, shown, title))
    for name, of in series.items():
        held = [panel for panel in panels if any(len(panel.pick(t)) for t in of.values())]
        if held:
            figures.append(over_steps(of, held, f"{title}: {name} over training"))
    return figures


def strips(tables: Tables, panels: Sequence[Panel], title: str) -> go.Figure:
    """A panel for each measure: models across, their heads as dots, darker = deeper, ringed where p < 0.05.

    Grey is chance: the mean over heads of their null, ± 2 of its standard deviations.
    """
    figure, places = _grid([panel.title for panel in panels], title)
    for panel, place in zip(panels, places, strict=True):
        for at, table in enumerate(tables.values()):
            rows = panel.pick(table)
            if len(rows):
                _band(figure, at, rows, place)
                figure.add_trace(_dots(at, rows), **place)
        unit = next((t for t in (panel.pick(table) for table in tables.values()) if len(t)), None)
        figure.update_yaxes(
            title_text="" if unit is None else escape(unit["unit"].iloc[0]), **place
        )
        names = [escape(label, quote=False) for label in tables]
        figure.update_xaxes(
            tickvals=list(range(len(names))),
            ticktext=names,
            range=[-0.6, len(names) - 0.4],
            **place,
        )
    return figure


def over_steps(
    series: Mapping[int, pd.DataFrame], panels: Sequence[Panel], title: str
) -> go.Figure:
    """A panel for each measure: training steps across, a line for each head or part that reaches farthest."""
    figure, places = _grid([panel.title for panel in panels], title)
    colours: dict[str, str] = {}
    for panel, place in zip(panels, places, strict=True):
        picked = {step: panel.pick(table) for step, table in series.items()}
        values = pd.DataFrame({step: labelled(rows)["value"] for step, rows in picked.items()})
        chance = [float(rows["null_mean"].mean()) for rows in picked.values()]
        base = pd.Series(chance, index=values.columns).fillna(0)
        far = (values - base).abs().max(axis=1).sort_values(ascending=False, kind="stable")
        for name in far.index[:MOST_LINES]:
            is_first = name not in colours
            colour = colours.setdefault(name, CATEGORICAL[len(colours) % len(CATEGORICAL)])
            figure.add_scatter(
                x=[str(step) for step in values.columns],
                y=values.loc[name],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=is_first,
                line={"color": colour, "width": 1.5},
                marker={"size": 4},
                hovertemplate=f"{name}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
                **place,
            )
        _chance_line(figure, [str(step) for step in values.columns], chance, place)
        figure.update_xaxes(title_text="training step", type="category", **place)
    return figure


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by what they are of: the head, and the item where there is one; escaped."""
    names = []
    for layer, head, item in zip(rows["layer"], rows["head"], rows["item"], strict=True):
        place = "" if pd.isna(layer) else f"{layer}" if pd.isna(head) else f"{layer}.{head}"
        names.append(escape(f"{item} → {place}" if item and item != place else place, quote=False))
    return rows.set_axis(names, axis=0)[~pd.Index(names).duplicated()]


def blank(title: str, height: int = 360) -> go.Figure:
    """An empty figure in the house style."""
    return go.Figure(
        layout={
            "template": TEMPLATE,
            "height": height,
            "title": {"text": escape(title, quote=False)},
        }
    )


def interval(rows: pd.DataFrame) -> dict[str, Any]:
    """Error bars from low to high; none where there is no interval."""
    up, down = rows["high"] - rows["value"], rows["value"] - rows["low"]
    return {
        "type": "data",
        "symmetric": False,
        "array": up.clip(lower=0).fillna(0),
        "arrayminus": down.clip(lower=0).fillna(0),
        "thickness": 1,
        "width": 0,
    }


def _grid(titles: Sequence[str], title: str) -> tuple[go.Figure, list[dict[str, int]]]:
    n_columns = 1 if len(titles) == 1 else 2
    n_rows = -(-len(titles) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        subplot_titles=[escape(name, quote=False) for name in titles],
        vertical_spacing=0.32 / n_rows,
        horizontal_spacing=0.12,
    )
    figure.update_layout(
        template=TEMPLATE,
        title_text=escape(title, quote=False),
        height=90 + PANEL_HEIGHT * n_rows,
        legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
        margin={"t": 80},
    )
    figure.update_annotations(font_size=13)
    places = [{"row": 1 + at // n_columns, "col": 1 + at % n_columns} for at in range(len(titles))]
    return figure, places


def _band(figure: go.Figure, at: int, rows: pd.DataFrame, place: Mapping[str, int]) -> None:
    """Drawn as a trace, so that the axis reaches it."""
    mean, std = float(rows["null_mean"].mean()), float(rows["null_std"].mean())
    if not np.isfinite(mean):
        return
    half = 2 * std if np.isfinite(std) else 0.0
    figure.add_scatter(
        x=[at - 0.38, at + 0.38, at + 0.38, at - 0.38, at - 0.38],
        y=[mean - half, mean - half, mean + half, mean + half, mean - half],
        mode="lines",
        fill="toself",
        fillcolor=CHANCE,
        line={"width": 1, "color": CHANCE},
        hovertemplate=f"chance {mean:.4g} ± {half:.2g}<extra></extra>",
        showlegend=False,
        **place,
    )


def _dots(at: int, rows: pd.DataFrame) -> go.Scatter:
    rows = labelled(rows)
    depth = rows["layer"].astype(float)
    span = depth.max() - depth.min() or 1.0
    # Spread by rank, so that equal values stay apart and equal tables look equal.
    spread = (np.arange(len(rows)) * 0.618) % 1 - 0.5
    return go.Scatter(
        x=at + 0.6 * spread,
        y=rows["value"],
        mode="markers",
        text=rows.index,
        customdata=np.stack([rows["p"].to_numpy(), rows["null_mean"].to_numpy()], axis=-1),
        marker={
            "size": 7 if len(rows) < 100 else 4,
            "color": (depth - depth.min()) / span,
            "colorscale": plotly_scale(DEPTHS),
            "cmin": 0,
            "cmax": 1,
            "line": {"width": np.where(rows["p"] < 0.05, 1.2, 0.0), "color": CATEGORICAL[5]},
        },
        hovertemplate="%{text}: %{y:.4g}<br>chance %{customdata[1]:.4g}, p %{customdata[0]:.2g}<extra></extra>",
        showlegend=False,
    )


def _chance_line(
    figure: go.Figure, steps: Sequence[str], chance: Sequence[float], place: Mapping[str, int]
) -> None:
    if np.isfinite(chance).any():
        figure.add_scatter(
            x=steps,
            y=chance,
            mode="lines",
            name="chance",
            legendgroup="chance",
            showlegend=place == {"row": 1, "col": 1},
            line={"color": GREY, "dash": "dot", "width": 1.5},
            hovertemplate="chance %{y:.4g}<extra></extra>",
            **place,
        )
