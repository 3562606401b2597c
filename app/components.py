"""Small pieces of page that more than one page uses."""

from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import dcc, html

from workbench.figures.theme import GRAPH_CONFIG

_HIDDEN: dict[str, Any] = {"aria-hidden": "true"}


def aria(label: str) -> dict[str, Any]:
    """The name that screen readers say, as arguments of a component."""
    return {"aria-label": label}


def attributes(name: str, value: str) -> dict[str, Any]:
    """An HTML attribute whose name is no Python name, as arguments of a component."""
    return {name: value}


def alert(message: str) -> html.Div:
    """A problem, said where the eye is; screen readers hear it at once."""
    return html.Div(message, className="alert", role="alert")


def notes(messages: list[str]) -> list[html.Div]:
    """What an address said that could not be meant."""
    return [html.Div(message, className="alert note", role="status") for message in messages]


def field(label: str, control: Any, hint: Any = None, **options: Any) -> html.Div:
    """A labelled control with a line of explanation under it."""
    parts = [html.Div(label, className="field-label"), html.Div(control)]
    if hint is not None:
        parts.append(html.Div(hint, className="hint"))
    return html.Div(parts, className="field", **options)


def icon_button(name: str, label: str, **options: Any) -> dmc.ActionIcon:
    """A button that shows one of the icons of `assets/workbench.css`."""
    return dmc.ActionIcon(
        html.Span(className=f"icon icon-{name}", **_HIDDEN),
        variant="subtle",
        color="gray",
        size="lg",
        attributes={"root": {"aria-label": label, "title": label}},
        **options,
    )


def graph(figure: go.Figure, *, label: str, id: str | None = None, min_width: int = 0) -> html.Div:
    """A figure as wide as its panel, scrolled sideways where that is less than `min_width` pixels.

    Args:
        label: what screen readers call it.
    """
    height = figure.layout.height or 420
    options: dict[str, Any] = {} if id is None else {"id": id}
    drawn = dcc.Graph(
        **options,
        figure=figure,
        config=dict(GRAPH_CONFIG),  # type: ignore[arg-type]  # a TypedDict of dash
        responsive=True,
        style={"height": f"{height}px", "minWidth": f"{min_width}px"},
    )
    return html.Div(drawn, className="figure", role="img", tabIndex="0", **aria(label))


def page_link(text: str, path: str, **query: Any) -> html.A:
    """A link to another page that says what to show there; fields that are None are left out."""
    said = urlencode([(name, value) for name, value in query.items() if value is not None])
    return html.A(text, href=f"{path}?{said}" if said else path, className="plain-button")
