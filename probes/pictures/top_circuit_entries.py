"""The largest entry of every head beside its turned copies, then the strongest entries by name."""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from probes.pictures.panels import Panel, Tables, blank, compared, measure, split_series
from workbench.figures.theme import CATEGORICAL

MOST_BARS = 30


def figures(tables: Tables) -> list[go.Figure]:
    """Panels of QK and OV, then two lists for each model."""
    names = dict.fromkeys(
        name for table in tables.values() for name in table["measure"].unique() if name != "entry"
    )
    # Named after the entry, a head would have another name at every step.
    panels = [_of_head(measure(name, site)) for name in names for site in ("QK", "OV")]
    found = compared(tables, panels, "Largest entries of circuits")
    for label, table in split_series(tables)[0].items():
        for site in ("OV", "QK"):
            rows = table[(table["measure"] == "entry") & (table["site"] == site)]
            if len(rows):
                found.append(_list(f"{label}: strongest {site} entries", rows))
    return found


def _of_head(panel: Panel) -> Panel:
    return Panel(panel.title, lambda table: panel.pick(table).assign(item=""))


def _list(title: str, rows: pd.DataFrame) -> go.Figure:
    order = rows["value"].abs().sort_values(ascending=False, kind="stable").index[:MOST_BARS]
    rows = rows.loc[order]
    names = [
        escape(f"{layer}.{head}  {item}", quote=False)
        for layer, head, item in zip(rows["layer"], rows["head"], rows["item"], strict=True)
    ]
    figure = blank(title, 120 + 18 * len(rows))
    figure.add_bar(
        x=rows["value"],
        y=list(range(len(rows))),
        orientation="h",
        text=names,
        textposition="none",
        marker={"color": CATEGORICAL[0]},
        hovertemplate="%{text}: %{x:.4g}<extra></extra>",
    )
    figure.update_xaxes(title_text=escape(rows["unit"].iloc[0]))
    return figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=names, autorange="reversed", showgrid=False
    )
