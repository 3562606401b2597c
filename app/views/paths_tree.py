"""The tree of what feeds what, and the parts of an attention score: as the paths page shows them."""

from typing import Any

import numpy as np
from dash import html
from jaxtyping import Float

from app.components import aria, attributes, graph, notes
from app.fields import PageState
from app.path_answers import Tree
from app.path_questions import ARROW
from app.tables import data_table
from app.views.circuits import facts, token
from app.views.paths_pieces import attention_links, number, shade, signed, statement, warned
from workbench.figures.path_view import score_map
from workbench.paths.scores import ScoreParts
from workbench.paths.search import Feeds
from workbench.stream.parts import Part

MOST_PARTS, TOP_PAIRS, CANCELLING = 20, 10, 3
SHARES = {
    "direct": "neither side through a component",
    "Q": "only the query through components",
    "K": "only the key through components",
    "both": "both sides through components",
}


def tree(found: Tree, state: PageState) -> list[Any]:
    """Everything that is opened, nested; every level adds up to the row that it hangs under."""
    values = np.concatenate([level.values for level in found.levels.values()])
    limit = float(np.abs(values).max(initial=0.0)) or 1.0
    return [
        *notes(list(found.notes)),
        html.Div(
            [_level(found, "", state, limit), _books(found)],
            className="path-tree",
            **aria("What feeds the number"),
        ),
    ]


def _level(found: Tree, chain: str, state: PageState, limit: float) -> html.Ul:
    """The rows of one level, the largest of them, and one for all others."""
    feeds = found.levels[chain]
    order = _order(feeds, state["sort"])
    opened = [_child(part, chain) in found.levels for part in feeds.parts]
    # What is open stays in sight.
    first = order[: state["rows"]]
    shown = [index for index in order if index in set(first) or opened[index]]
    rest = [index for index in order if index not in set(shown)]
    rows = [_row(found, feeds, index, chain, state, limit) for index in shown]
    if rest:
        value = float(feeds.values[rest].sum())
        cells = [
            html.Span(f"{len(rest)} more", className="path-name rest"),
            _bar(value, limit),
            *_amounts(value, feeds.subtotal),
        ]
        rows.append(html.Li(html.Div(cells, className="path-row")))
    rows.append(html.Li(_sum_row(feeds, chain)))
    return html.Ul(rows)


def _row(
    found: Tree, feeds: Feeds, index: int, chain: str, state: PageState, limit: float
) -> html.Li:
    part, value = feeds.parts[index], float(feeds.values[index])
    child = _child(part, chain)
    is_open, is_component = child in found.levels, part.kind in ("head", "mlp")
    name: Any = html.Span(part.label, className="path-name leaf")
    if is_component:
        name = html.Button(
            part.label,
            className="path-name path-toggle",
            title=f"{'Close' if is_open else 'Open'} what feeds {part.label}",
            **attributes("aria-expanded", str(is_open).lower()),
            **attributes("data-chain", child),
        )
    what = part.label if is_component else ARROW.join([part.label, *chain.split(",")]).rstrip(ARROW)
    check = html.Button(
        "check",
        className="path-check",
        title=f"Take {what} out of the model",
        **attributes("data-check", what),
        **aria(f"Check {what}"),
    )
    cells = [name, _bar(value, limit), *_amounts(value, feeds.subtotal), check]
    parts: list[Any] = [html.Div(cells, className="path-row")]
    if is_open:
        parts.append(_level(found, child, state, limit))
    return html.Li(parts)


def _sum_row(feeds: Feeds, chain: str) -> html.Div:
    """What the level adds up to: what stands in the row above it."""
    whole = "all paths" if not chain else f"all that goes on through {chain.replace(',', ARROW)}"
    cells = [
        html.Span(f"= {whole}", className="path-name sum"),
        html.Span(className="path-bar"),
        html.Span(signed(float(feeds.values.sum())), className="number"),
        html.Span(f"± {abs(feeds.residual):.0e}", className="share", title="rounding error"),
    ]
    return html.Div(cells, className="path-row sum")


def _books(found: Tree) -> html.P:
    whole = float(found.levels[""].values.sum())
    return statement(
        "All paths ", number(whole), " + bias ", number(found.bias), " = ",
        number(whole + found.bias), "; the model's own number is ", number(found.total), ".",
    )  # fmt: skip


def _amounts(value: float, whole: float) -> list[Any]:
    share = f"{signed(100 * value / whole, 1)} %" if whole else ""
    return [
        html.Span(signed(value), className="number"),
        html.Span(share, className="share", title="share of the level"),
    ]


def _bar(value: float, limit: float) -> html.Span:
    """From the middle to the right if it adds, to the left if it takes away."""
    width = 50 * min(1.0, abs(value) / limit)
    style = {
        "width": f"{width:.2f}%",
        "left": "50%" if value > 0 else f"{50 - width:.2f}%",
        "background": shade(1.4 * np.sign(value)),
    }
    return html.Span(html.Span(style=style), className="path-bar")


def _order(feeds: Feeds, sort: str) -> list[int]:
    if sort == "layer":
        return list(range(len(feeds.values)))
    keys = -np.abs(feeds.values) if sort == "size" else -feeds.values
    return [int(index) for index in np.argsort(keys, kind="stable")]


def _child(part: Part, chain: str) -> str:
    return f"{part.label},{chain}" if chain else part.label


def score(found: ScoreParts, state: PageState) -> list[Any]:
    """The score as parts of the query times parts of the key."""
    values, rows, columns = largest_parts(found)
    figure = score_map(values, rows, columns, unit=found.unit)
    shares = [(SHARES[name], number(value)) for name, value in found.shares._asdict().items()]
    # In a difference that is nothing.
    is_alone = found.versus is None
    constant = [("the same for all keys", number(found.constant))] if is_alone else []
    warning = (
        f"the pairs come to {found.absolute:.3g} in size and to {found.values.sum():.3g} in sum: they "
        "cancel, so a single one means little"
    )
    return [
        statement(
            "Head ", token(str(found.head)), " gives ", number(found.attention), " of its attention at ",
            *_place(found, found.query), " to ", *_place(found, found.key), ". ", *_number(found),
            number(found.total), " before softmax; its pairs sum to ", number(float(found.values.sum())),
            "; residual ", html.Span(f"{found.residual:.1e}", className="number"), ".",
        ),
        facts(*shares, *constant),
        warned(warning if found.cancellation > CANCELLING else ""),
        graph(figure, label="Parts of the query times parts of the key", min_width=440),
        data_table(
            found.top(TOP_PAIRS),
            label="The largest pairs, and the rest of each sign",
            headers={"query": "part of the query", "key": "part of the key", "value": found.unit},
            formats={"value": "+.4f"},
        ),
        attention_links(state, str(found.head), found.query),
    ]  # fmt: skip


def _place(found: ScoreParts, pos: int) -> list[Any]:
    return [f"{pos} ", token(found.str_tokens[pos])]


def _number(found: ScoreParts) -> list[Any]:
    if found.versus is None:
        return ["The score is "]
    if isinstance(found.versus, int):
        return ["The score less that of ", *_place(found, found.versus), " is "]
    return ["The score less the mean of the other keys is "]


def largest_parts(
    found: ScoreParts,
) -> tuple[Float[np.ndarray, "row column"], list[str], list[str]]:
    """The pairs, rows and columns beyond the largest joined into one: nothing is left out of the sum."""
    values, names = found.values, []
    for axis, parts in enumerate((found.query_parts, found.key_parts)):
        labels = [part.label for part in parts]
        if len(labels) > MOST_PARTS:
            sizes = np.abs(values).sum(1 - axis)
            kept = np.sort(np.argsort(-sizes, kind="stable")[: MOST_PARTS - 1])
            rest = np.setdiff1d(np.arange(len(labels)), kept)
            joined = np.take(values, rest, axis).sum(axis, keepdims=True)
            values = np.concatenate([np.take(values, kept, axis), joined], axis)
            labels = [*(labels[index] for index in kept), f"{len(rest)} others"]
        names.append(labels)
    return values, names[0], names[1]
