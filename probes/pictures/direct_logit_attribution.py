"""What each part adds to the right token's logit: all models, each model's parts, series over steps."""

import pandas as pd
import plotly.graph_objects as go

from probes.pictures.panels import (
    CHANCE,
    Panel,
    Tables,
    blank,
    compared,
    interval,
    labelled,
    split_series,
)
from workbench.figures.theme import CATEGORICAL

MOST_PARTS = 40


def figures(tables: Tables) -> list[go.Figure]:
    """Parts of all models side by side, then the parts of each in their order."""
    panel = Panel("direct effect", lambda table: _parts(table)[lambda rows: rows["layer"].notna()])
    found = compared(tables, [panel], "Direct effect on the next token")
    return found + [_bars(label, table) for label, table in split_series(tables)[0].items()]


def _parts(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["measure"] == "direct effect"]


def _bars(label: str, table: pd.DataFrame) -> go.Figure:
    rows = _parts(table).reset_index(drop=True)
    total, n_all = len(rows), MOST_PARTS
    rows = rows.loc[sorted(rows["value"].abs().nlargest(n_all).index)]
    shown = "" if total == len(rows) else f", the {len(rows)} largest of {total}"
    whole = table.loc[table["measure"] == "logit of the next token", "value"]
    sum_is = f"; all parts sum to {whole.iloc[0]:.2f}" if len(whole) else ""
    figure = blank(f"{label}: logit of the next token by part{shown}{sum_is}", 380)
    names = [part.split(" → ")[0] for part in labelled(rows).index]
    figure.add_bar(
        x=names,
        y=rows["value"],
        error_y=interval(rows),
        marker={"color": CATEGORICAL[0]},
        name="true next token",
        hovertemplate="%{x}: %{y:.3f} logits<extra></extra>",
    )
    figure.add_scatter(
        x=names,
        y=rows["null_mean"],
        mode="markers",
        marker={"color": CATEGORICAL[1], "size": 5, "symbol": "line-ew-open"},
        error_y={
            "type": "data",
            "array": (2 * rows["null_std"]).fillna(0),
            "color": CHANCE,
            "width": 0,
        },
        name="renamed tokens, ± 2 std",
        hovertemplate="renamed: %{y:.3f}<extra></extra>",
    )
    figure.update_xaxes(type="category", title_text="part")
    return figure.update_yaxes(title_text="logits above the mean logit")
