"""Each measure in a panel: models across, the shuffled networks' spread behind them."""

from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.pictures.panels import CHANCE, PANEL_HEIGHT, Tables
from workbench.figures.theme import CATEGORICAL, TEMPLATE

MEASURES = ("Newman Q", "ncut", "wiring length", "mean wire length")


def figures(tables: Tables) -> list[go.Figure]:
    """One figure of four panels; a measure that no model has is left out."""
    held = [one for one in MEASURES if any((t["measure"] == one).any() for t in tables.values())]
    if not held:
        return []
    figure = make_subplots(rows=-(-len(held) // 2), cols=2, subplot_titles=held)
    for at, name in enumerate(held):
        place = {"row": 1 + at // 2, "col": 1 + at % 2}
        for index, (label, table) in enumerate(tables.items()):
            rows = table[table["measure"] == name]
            plain = escape(label, quote=False)
            figure.add_scatter(
                x=[plain] * len(rows),
                y=rows["null_mean"],
                mode="markers",
                marker={"size": 9, "symbol": "line-ew-open", "color": CHANCE},
                error_y={"type": "data", "array": 2 * rows["null_std"], "color": CHANCE},
                showlegend=False,
                hovertemplate="shuffled %{y:.3g}<extra></extra>",
                **place,
            )
            figure.add_scatter(
                x=[plain] * len(rows),
                y=rows["value"],
                mode="markers",
                marker={"size": 9, "color": CATEGORICAL[index % len(CATEGORICAL)]},
                showlegend=False,
                hovertemplate="%{x}: %{y:.3g}<extra></extra>",
                **place,
            )
    figure.update_layout(
        template=TEMPLATE,
        title_text="Modularity and wiring; grey: weights shuffled, ± 2 standard deviations",
        height=110 + PANEL_HEIGHT * -(-len(held) // 2),
    )
    figure.update_annotations(font_size=13)
    return [figure]
