"""Small pieces of the paths page: sentences with numbers in them, warnings, colours, links."""

from typing import Any

import numpy as np
from dash import html

from app.components import attributes, page_link
from app.fields import PageState
from workbench.figures.tokens import visible

SHADE = 0.72


def attention_links(state: PageState, head: str, query: int) -> html.Div:
    """To the head's other pages."""
    shared = {"model": state["model"], "step": state["step"], "head": head}
    return html.Div(
        [
            page_link(
                f"Attention of {head} here", "/", **shared, prompt=state["prompt"], locked=1, pos=query
            ),
            page_link(f"Circuits of {head}", "/circuits", **shared, circuit="QK"),
        ],
        className="pair-links",
    )  # fmt: skip


def statement(*parts: Any) -> html.P:
    """A sentence with numbers in it."""
    return html.P(list(parts), className="statement")


def number(value: float) -> html.Span:
    """A number to four places; far below that by its power of ten."""
    text = f"{value:.4f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1e}"
    return html.Span(text, className="number")


def signed(value: float, digits: int = 4) -> str:
    """With its sign, unless it rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def named(label: str) -> html.Span:
    """The question in words."""
    return html.Span(visible(label).replace("·", " "), className="path-question")


def warned(text: str) -> html.Div:
    """What keeps single numbers from meaning much."""
    said = text[:1].upper() + text[1:] + "." if text else ""
    return html.Div(said, className="alert", hidden=not text, **attributes("data-warning", "paths"))


def spell_count(count: int) -> str:
    """A number that may be larger than anything."""
    return (
        f"{count:,}"
        if count < 10**7
        else f"{float(count):.1e}"
        if count < 10**300
        else "10³⁰⁰ or more"
    )


def spell_ratio(ratio: float) -> str:
    """A ratio, or that it has no limit."""
    return f"{ratio:.2f}" if np.isfinite(ratio) else "∞"


def unit_of(unit: str) -> str:
    """The unit in words."""
    return "of the score before softmax" if unit == "score" else unit


def shade(share: float) -> str:
    """Nothing at zero, blue up to 1, brown down to -1, for backgrounds in both themes."""
    colour = "67,147,195" if share > 0 else "196,106,16"
    return f"rgba({colour},{SHADE * min(1.0, abs(float(share))):.3f})"
