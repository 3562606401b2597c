"""What a report has measured of heads, coloured: one measure of all models, or all measures of one model."""

import json
from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import numpy as np
from dash import html

from app.components import aria, field
from app.fields import PageState
from app.report_findings import LARGEST, MEAN, Measure, Pivot, Profile
from app.views.reports import visible_text
from app.views.reports_tables import ROW_HEIGHT, Opens
from app.views.training import section

PIVOT = "report-pivot-grid"
EVERY = ""
_HEAD = {
    "field": "head",
    "headerName": "head",
    "pinned": "left",
    "width": 78,
    "comparator": {"function": "reportHeads"},
}


def pivot_section(state: PageState) -> html.Section:
    """The controls of the table of heads; a callback fills it."""
    whose = _select("report-whose", "Models", whose_options(()), state["whose"])
    measure = _select("report-measure", "Measure", [], state["measure"] or None)
    of = _select("report-of", "Of", of_options(()), state["of"])
    return section(
        "report-heads",
        "Heads",
        "Heads down; across, all models by one measure, or one model by all. White is zero, blue above it, "
        "orange below. A number opens the head's card; the sign beside it, where the head looks.",
        html.Div(
            [
                html.Div(field("Models", whose)),
                html.Div(
                    field("Measure", measure), id="report-measure-field", className="report-measure"
                ),
                html.Div(field("Of", of), id="report-of-field"),
            ],
            className="report-pivot-controls",
        ),
        html.Div(id="report-pivot", className="report-pivot"),
    )


def _select(id: str, label: str, data: Sequence[Any], value: Any) -> dmc.Select:
    return dmc.Select(
        id=id,
        data=list(data),
        value=value,
        searchable=True,
        allowDeselect=False,
        size="xs",
        placeholder="nothing was measured of heads",
        attributes={"input": {"aria-label": label}},
    )


def whose_options(models: Sequence[str]) -> list[dict[str, str]]:
    """All models, or one of them."""
    each = [{"value": name, "label": visible_text(name)} for name in models]
    return [{"value": EVERY, "label": "all, by one measure"}, *each]


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
    limit = _limit(pivot.values)
    columns = [
        _column(place, label, label, label, limit) for place, label in enumerate(pivot.models)
    ]
    rows = [
        _row(head, values, [opens(label, *head.split(".")) for label in pivot.models])
        for head, values in zip(pivot.heads, pivot.values, strict=True)
    ]
    said = f"{measure.name} of {measure.probe}, in {measure.unit or 'no unit'}; the darkest is ±{limit:.3g}."
    n_heads, n_models = pivot.n_left_out
    if n_heads or n_models:
        said += f" {n_heads:,} more heads and {n_models:,} more models are in the table of all findings."
    return _grid(columns, rows, f"{measure.name} of all heads", said)


def profile_grid(profile: Profile, of: str, opens: Opens) -> list[Any]:
    """All measures of one model's heads, grouped by probe; each measure has a scale of its own."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for place, measure in enumerate(profile.measures):
        tip = f"{measure.name} of {measure.probe}, in {measure.unit or 'no unit'}"
        limit = _limit(profile.values[:, place])
        column = _column(place, measure.name, f"{tip}; the darkest is ±{limit:.3g}", tip, limit)
        groups.setdefault(measure.probe, []).append(column)
    columns = [
        {"headerName": visible_text(probe), "children": children}
        for probe, children in groups.items()
    ]
    rows = [
        _row(head, values, [opens(profile.model, *head.split("."))] * len(profile.measures))
        for head, values in zip(profile.heads, profile.values, strict=True)
    ]
    said = (
        f"All measures of the heads of {profile.model}, each with its own scale; of several numbers of a head "
        f"{dict((one['value'], one['label']) for one in of_options(()))[of]}."
    )
    n_heads, n_measures = profile.n_left_out
    if n_heads or n_measures:
        said += f" {n_heads:,} more heads and {n_measures:,} more measures are in the table of all findings."
    return _grid(columns, rows, f"All measures of the heads of {profile.model}", said)


def _limit(values: Any) -> float:
    return float(np.nanmax(np.abs(values), initial=0.0)) or 1.0


def _column(place: int, label: str, tip: str, named: str, limit: float) -> dict[str, Any]:
    style = {"function": f"reportShade(params.value, {json.dumps(limit)})"}
    return {
        "field": f"m{place}",
        "headerName": visible_text(label),
        "headerTooltip": visible_text(tip),
        "cellRenderer": "HeadValue",
        "cellRendererParams": {"named": visible_text(named)},
        "cellStyle": style,
        "minWidth": 104,
        "flex": 1,
    }


def _row(head: str, values: Any, opened: Sequence[dict[str, str]]) -> dict[str, Any]:
    row: dict[str, Any] = {"head": head, "links": {}}
    for place, (value, address) in enumerate(zip(values, opened, strict=True)):
        if not np.isnan(value):
            row[f"m{place}"] = float(value)
            row["links"][f"m{place}"] = address
    return row


def _grid(columns: list[Any], rows: list[dict[str, Any]], named: str, said: str) -> list[Any]:
    n_columns = sum(len(column.get("children", (column,))) for column in columns)
    n_headers = 1 + any("children" in column for column in columns)
    height = min(len(rows), 14) * ROW_HEIGHT + 34 * n_headers + 18
    grid = dag.AgGrid(
        id=PIVOT,
        rowData=rows,
        columnDefs=[_HEAD, *columns],
        defaultColDef={"sortable": True, "resizable": True},
        dashGridOptions={
            "rowHeight": ROW_HEIGHT,
            "headerHeight": 34,
            "animateRows": False,
            "tooltipShowDelay": 300,
        },
        style={"height": f"{height}px", "width": "100%", "maxWidth": f"{110 + 170 * n_columns}px"},
        className="data-table",
    )  # fmt: skip
    return [
        html.Div(grid, role="region", **aria(visible_text(named))),
        html.Div(visible_text(said), className="hint"),
    ]
