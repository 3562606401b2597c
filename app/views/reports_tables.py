"""Results of a report as grids: all findings block by block, and one measure of all heads, coloured."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import dash_ag_grid as dag
import dash_mantine_components as dmc
import numpy as np
from dash import html

from app.components import aria, field
from app.fields import PageState
from app.report_filters import COLUMNS, TEXTS, read_filter, read_sorts
from app.report_findings import LARGEST, MEAN, Findings, Measure, Pivot
from app.views.reports import visible_text
from app.views.training import section

GRID, PIVOT = "report-grid", "report-pivot-grid"
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


def pivot_section(state: PageState) -> html.Section:
    """The controls of the table of heads; a callback fills it."""
    measure = dmc.Select(
        id="report-measure",
        data=[],
        value=state["measure"] or None,
        searchable=True,
        allowDeselect=False,
        size="xs",
        placeholder="nothing was measured of heads",
        attributes={"input": {"aria-label": "Measure"}},
    )
    of = dmc.Select(
        id="report-of",
        data=of_options(()),
        value=state["of"],
        searchable=True,
        allowDeselect=False,
        size="xs",
        attributes={"input": {"aria-label": "Of"}},
    )
    return section(
        "report-heads",
        "Heads of all models",
        "One measure, heads down and models across: white is zero, blue above it, orange below. A number opens "
        "the head's card; the sign beside it, where the head looks.",
        html.Div(
            [
                html.Div(field("Measure", measure), className="report-measure"),
                html.Div(field("Of", of), id="report-of-field"),
            ],
            className="report-pivot-controls",
        ),
        html.Div(id="report-pivot", className="report-pivot"),
    )


def measure_options(measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """Measures, grouped by probe."""
    groups: dict[str, list[dict[str, str]]] = {}
    for one in measures:
        groups.setdefault(visible_text(one.probe), []).append(
            {"value": one.key, "label": visible_text(one.name)}
        )
    return [{"group": group, "items": items} for group, items in groups.items()]


def of_options(places: Sequence[str]) -> list[dict[str, str]]:
    """What of several numbers of a head is shown."""
    made = [(LARGEST, "the largest in size"), (MEAN, "their mean")]
    each = [(place, _place(place)) for place in places if place not in (LARGEST, MEAN)]
    return [{"value": value, "label": label} for value, label in [*made, *each]]


def _place(place: str) -> str:
    site, _, item = place.partition("|")
    return visible_text(", ".join(word for word in (site, item) if word) or "no site or item")


def pivot_grid(pivot: Pivot, measure: Measure, opens: Opens) -> list[Any]:
    """One measure of all heads; nothing where a model has no such head."""
    limit = float(np.nanmax(np.abs(pivot.values), initial=0.0)) or 1.0
    rows = []
    for head, values in zip(pivot.heads, pivot.values, strict=True):
        layer, _, index = head.partition(".")
        row: dict[str, Any] = {"head": head, "links": {}}
        for place, (label, value) in enumerate(zip(pivot.models, values, strict=True)):
            if not np.isnan(value):
                row[f"m{place}"] = float(value)
                row["links"][f"m{place}"] = opens(label, layer, index)
        rows.append(row)
    style = {"function": f"reportShade(params.value, {json.dumps(limit)})"}
    columns: list[dict[str, Any]] = [
        {
            "field": "head",
            "headerName": "head",
            "pinned": "left",
            "width": 78,
            "comparator": {"function": "reportHeads"},
        }
    ]
    columns += [
        {
            "field": f"m{place}",
            "headerName": visible_text(label),
            "headerTooltip": visible_text(label),
            "cellRenderer": "HeadValue",
            "cellStyle": style,
            "minWidth": 104,
            "flex": 1,
        }
        for place, label in enumerate(pivot.models)
    ]
    height = min(len(rows), 14) * ROW_HEIGHT + 52
    grid = dag.AgGrid(
        id=PIVOT,
        rowData=rows,
        columnDefs=columns,
        defaultColDef={"sortable": True, "resizable": True},
        dashGridOptions={
            "rowHeight": ROW_HEIGHT,
            "headerHeight": 34,
            "animateRows": False,
            "tooltipShowDelay": 300,
        },
        style={"height": f"{height}px", "width": "100%", "maxWidth": f"{110 + 170 * len(pivot.models)}px"},
        className="data-table",
    )  # fmt: skip
    n_heads, n_models = pivot.n_left_out
    left = f" {n_heads:,} more heads and {n_models:,} more models are in the table of all findings."
    unit = measure.unit or "no unit"
    said = f"{measure.name} of {measure.probe}, in {unit}; the darkest is ±{limit:.3g}."
    return [
        html.Div(grid, role="region", **aria(f"{measure.name} of all heads")),
        html.Div(visible_text(said + (left if n_heads or n_models else "")), className="hint"),
    ]
