"""Loss, rank, share right and distance to the final prediction by depth; a line for each model or step."""

from html import escape

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from probes.pictures.panels import PANEL_HEIGHT, Tables, interval, split_series
from workbench.figures.theme import CATEGORICAL, SEQUENTIAL, TEMPLATE

MEASURES = ("loss", "KL to final", "log rank", "right")


def figures(tables: Tables) -> list[go.Figure]:
    """All models, then every series with a line for each step, darker = later."""
    side_by_side, series = split_series(tables)
    colours = [CATEGORICAL[index % len(CATEGORICAL)] for index in range(len(side_by_side))]
    found = [_lines(side_by_side, colours, "The prediction by depth")]
    for name, of in series.items():
        # From a third of the scale on: its start would vanish on white paper.
        shares = [0.3 + 0.7 * index / (len(of) - 1) for index in range(len(of))]
        shades = sample_colorscale(list(SEQUENTIAL), shares)
        steps = {f"step {step}": table for step, table in of.items()}
        found.append(_lines(steps, shades, f"The prediction by depth: {name} over training"))
    return found


def _lines(tables: Tables, colours: list[str], title: str) -> go.Figure:
    figure = make_subplots(rows=2, cols=2, subplot_titles=MEASURES, vertical_spacing=0.16)
    for (label, table), colour in zip(tables.items(), colours, strict=True):
        for at, name in enumerate(MEASURES):
            place = {"row": 1 + at // 2, "col": 1 + at % 2}
            rows = table[table["measure"] == name].sort_values("layer")
            depth = rows["layer"].astype(float)
            plain = escape(label, quote=False)
            figure.add_scatter(
                x=depth / (depth.max() or 1.0),
                y=rows["value"],
                mode="lines+markers",
                name=plain,
                legendgroup=plain,
                showlegend=at == 0,
                line={"color": colour},
                text=rows["item"],
                error_y=interval(rows),
                hovertemplate=f"{plain}, %{{text}}: %{{y:.3f}}<extra></extra>",
                **place,
            )
            if len(rows):
                figure.update_yaxes(title_text=escape(rows["unit"].iloc[0]), **place)
    figure.update_layout(
        template=TEMPLATE, title_text=escape(title, quote=False), height=110 + 2 * PANEL_HEIGHT
    )
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title_text="depth: 0 the embedding, 1 the last layer", row=2)
    return figure
