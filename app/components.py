"""Small pieces of page that more than one page uses."""

from typing import Any

import dash_mantine_components as dmc
from dash import html

_HIDDEN: dict[str, Any] = {"aria-hidden": "true"}


def aria(label: str) -> dict[str, Any]:
    """The name that screen readers say, as arguments of a component."""
    return {"aria-label": label}


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
