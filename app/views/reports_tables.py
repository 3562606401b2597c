"""All findings of a report as a grid that asks for them block by block."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import dash_ag_grid as dag
from dash import html

from app.components import aria
from app.fields import PageState
from app.report_filters import COLUMNS, TEXTS, read_filter, read_sorts
from app.report_findings import Findings
from app.views.reports import visible_text
from app.views.training import section

GRID = "report-grid"
BLOCK, ROW_HEIGHT = 100, 28
HEADERS = {
    "null_mean": "null mean",
    "null_std": "null ±",
    "low": "95 % low",
    "high": "95 % high",
    "effect": "effect (σ)",
}
WIDTHS = {
    "model": 120,
    "probe": 150,
    "measure": 180,
    "layer": 106,
    "head": 104,
    "site": 110,
    "item": 110,
}
WIDTHS |= {"unit": 120, "effect": 96}
_WORDS = (
    "contains", "notContains", "equals", "notEqual", "startsWith", "endsWith", "blank", "notBlank",
)  # fmt: skip
_NUMBERS = (
    "equals", "notEqual", "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "inRange",
    "blank", "notBlank",
)  # fmt: skip
Opens = Callable[[str, Any, Any], dict[str, str]]


def findings_section(state: PageState) -> html.Section:
    """The grid of all rows, begun with the address's order and filter."""
    sorts = dict(read_sorts(state["order"]))
    columns = [_column(name, sorts) for name in COLUMNS]
    opens = {
        "field": "open",
        "headerName": "open",
        "cellRenderer": "HeadLinks",
        "sortable": False,
        "filter": False,
        "width": 144,
    }
    where = read_filter(state["where"]) if state["where"] else {}
    grid = dag.AgGrid(
        id=GRID,
        rowModelType="infinite",
        columnDefs=[*columns[:5], opens, *columns[5:]],
        defaultColDef={"sortable": True, "resizable": True},
        filterModel=where,
        dashGridOptions={
            "rowHeight": ROW_HEIGHT,
            "headerHeight": 34,
            "cacheBlockSize": BLOCK,
            "maxBlocksInCache": 20,
            # One at a time: Dash drops the answer to a call that was followed by another.
            "maxConcurrentDatasourceRequests": 1,
            "blockLoadDebounceMillis": 60,
            "suppressFieldDotNotation": True,
            "multiSortKey": "ctrl",
            "animateRows": False,
            "enableCellTextSelection": True,
        },
        style={"height": "460px", "width": "100%"},
        className="data-table",
    )
    return section(
        "report-findings",
        "All findings",
        "One row for each number. Sort by a click on a column's name (Ctrl for more than one), filter with the "
        "sign beside it. q is the false discovery rate at which a number passes.",
        html.Div(id="report-grid-said"),
        html.Div(grid, role="region", **aria("All findings")),
    )


def _column(name: str, sorts: dict[str, str]) -> dict[str, Any]:
    is_text = name in TEXTS
    options = _WORDS if is_text else _NUMBERS
    column: dict[str, Any] = {
        "field": name,
        "headerName": HEADERS.get(name, name),
        "width": WIDTHS.get(name, 104),
        "filter": "agTextColumnFilter" if is_text else "agNumberColumnFilter",
        "filterParams": {"filterOptions": list(options), "maxNumConditions": 4, "debounceMs": 400},
    }
    if name in sorts:
        column |= {"sort": sorts[name], "sortIndex": list(sorts).index(name)}
    if is_text:
        return column
    form = "d" if name in ("layer", "head", "n", "step", "seed") else ".3~g"
    function = f"params.value == null ? '' : d3.format('{form}')(params.value)"
    return column | {"type": "rightAligned", "valueFormatter": {"function": function}}


def rows_of(found: Sequence[dict[str, Any]], opens: Opens) -> list[dict[str, Any]]:
    """Rows as the grid shows them, with the addresses of their heads."""
    return [
        {
            **row,
            **{name: visible_text(str(row[name] or "")) for name in TEXTS},
            **opens(row["model"], row["layer"], row["head"]),
        }
        for row in found
    ]


def opener(findings: Findings, known: dict[str, tuple[str, tuple[int, ...]]]) -> Opens:
    """A model's label and a head → addresses of its card and of its attention, where pages can show it.

    Args:
        known: by every name of a model, what pages call it and which checkpoints they can show.
    """

    def opens(label: str, layer: Any, head: Any) -> dict[str, str]:
        name, step = findings.opened.get(label, ("", None))
        if layer is None or head is None or name not in known:
            return {}
        page_name, steps = known[name]
        if step is not None and step not in steps:
            return {}
        query = {"model": page_name} | ({} if step is None else {"step": step})
        query["head"] = f"{layer}.{head}"
        return {
            "card": "/heads?" + urlencode(query),
            "attention": "/?" + urlencode({**query, "locked": 1}),
        }

    return opens
