"""Python that reproduces each panel of the paths page in a notebook."""

from app.fields import PageState
from app.path_questions import ARROW
from app.residual_answers import token_of
from app.views.circuit_code import head_code, load_code


def _start(state: PageState, *imports: str) -> list[str]:
    """Imports, the frozen network, and the direction that is asked for."""
    known = {"import workbench", "from workbench.paths.frozen import freeze", *imports}
    lines = [
        f"model = {load_code(state)}",
        f"frozen = freeze(model, {state['prompt']!r})",
    ]
    if state["what"] == "score":
        known |= {
            "from workbench.paths.scores import score_direction",
            "from workbench.sites import Head",
        }
        lines += [*_place(state), _score_direction(state)]
    else:
        known.add("from workbench.paths.directions import logit_direction")
        lines.append(_logit_direction(state))
    return [*sorted(known, key=_by_module), "", *lines]


def _logit_direction(state: PageState) -> str:
    target, versus = token_of(state["target"]), token_of(state["versus"])
    options = [f", {target!r}"] if target is not None else []
    options += [f", distractor={versus!r}"] if versus is not None else []
    options += [f", pos={state['pos']}"] if state["pos"] is not None else []
    return f"direction = logit_direction(frozen{''.join(options)})"


def _place(state: PageState) -> list[str]:
    query = "len(frozen.str_tokens) - 1" if state["query"] is None else str(state["query"])
    key = "int(pattern.argmax())" if state["key"] is None else str(state["key"])
    lines = [f"head, query = {head_code(state['head'])}, {query}"]
    if state["key"] is None:
        lines.append("pattern = frozen.run.pattern(head.layer)[0, head.head, query]")
    than = state["than"]
    versus = than if than.isdecimal() else repr(than or None)
    return [*lines, f"key, versus = {key}, {versus}"]


def _score_direction(state: PageState) -> str:
    call = f"frozen, head, query, key, side={state['side']!r}, versus=versus"
    return f"direction = score_direction({call})"


def meter(state: PageState) -> str:
    """Python of the meter."""
    start = _start(
        state,
        "from workbench.figures.path_view import SumBar, meter_bars",
        "from workbench.paths.search import top_paths",
    )
    body = [
        f"found = top_paths(frozen, direction, k={state['k']})",
        "print(found.label, found.total, found.residual, found.warning)",
        'bars = [SumBar("listed", found.listed), SumBar("all others", found.remainder)]',
        'bars.append(SumBar("bias", found.bias))',
        'meter_bars(bars, total=found.total, name="the model", unit=found.unit)',
    ]
    return "\n".join([*start, *body])


def spectrum(state: PageState) -> str:
    """Python of the orders."""
    start = _start(
        state,
        "from workbench.figures.path_view import order_bars",
        "from workbench.paths.orders import order_spectrum",
    )
    body = [
        f"found = order_spectrum(frozen, direction, counted={state['counted']!r})",
        "print(found.orders, found.cancellation, found.residual)",
        "own = dict(bias=found.bias, total=found.total, unit=found.unit)",
        f"order_bars(found.orders, **own, scale={state['scale']!r})",
    ]
    return "\n".join([*start, *body])


def tree(state: PageState) -> str:
    """Python of what feeds the end, and the first chain that is opened."""
    start = _start(state, "from workbench.paths.search import feeds")
    body = ["found = feeds(frozen, direction, [])"]
    chain = state["through"].partition(";")[0]
    if chain:
        body = [
            "parts = {part.label: part for part in frozen.components}",
            f"through = [parts[label] for label in {chain.split(',')!r}]",
            "found = feeds(frozen, direction, through)",
        ]
    body.append("print(found.subtotal, found.values.sum(), found.residual)")
    return "\n".join([*start, *body, "found.table()"])


def top(state: PageState) -> str:
    """Python of the table."""
    start = _start(state, "from workbench.paths.search import top_paths")
    body = [f"found = top_paths(frozen, direction, k={state['k']})", "found.table()"]
    return "\n".join([*start, *body])


def flow(state: PageState) -> str:
    """Python of the flow."""
    start = _start(
        state,
        "from workbench.figures.flow_view import flow_figure",
        "from workbench.paths.flow import path_flow",
    )
    body = [
        "flow = path_flow(frozen, direction)",
        f"flow_figure(flow, threshold={state['threshold']}).figure",
    ]
    return "\n".join([*start, *body])


def tokens(state: PageState) -> str:
    """Python of the numbers by token."""
    start = _start(
        state,
        "import pandas as pd",
        "from workbench.paths.through import paths_through",
    )
    body = [
        "found = paths_through(frozen, direction)",
        'pd.DataFrame({"token": found.str_tokens, "value": found.by_token})',
    ]
    return "\n".join([*start, *body])


def score(state: PageState) -> str:
    """Python of the parts of a score."""
    start = _start(
        {**state, "what": "score"},
        "from workbench.paths.scores import score_parts",
    )
    body = [
        "found = score_parts(frozen, head, query, key, versus=versus)",
        "print(found.total, found.residual, found.shares)",
        "found.table()",
    ]
    return "\n".join([*start, *body])


def check(state: PageState) -> str:
    """Python of the check of one path or component."""
    labels = state["check"].split(ARROW)
    start = _start(
        state,
        "from workbench.paths.search import Path",
        "from workbench.paths.verify import verify",
    )
    lines = [
        "parts = {part.label: part for part in (*frozen.sources, *frozen.constants, *frozen.components)}",
        f"first, *rest = [parts[label] for label in {labels!r}]",
        'what = first if first.kind in ("head", "mlp") else Path(first, tuple(rest))',
        "verify(frozen, direction, what).table()",
    ]
    return "\n".join([*start, *lines])


def _by_module(line: str) -> tuple[bool, str]:
    """`import` before `from`, as a reader expects."""
    return line.startswith("from"), line
