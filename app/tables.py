"""Tables on a page: tokens with their whitespace visible, numbers to a few digits, sorted by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_ag_grid as dag
import pandas as pd
from dash import html

from app.components import aria
from workbench.figures.tokens import visible

ROW_HEIGHT = 30
MAX_ROWS = 20_000
WHOLE_ROWS, SEEN_ROWS, WIDEST = 24, 12, 34


def data_table(
    frame: pd.DataFrame,
    *,
    id: str | dict[str, str] | None = None,
    label: str,
    tokens: Sequence[str] = (),
    formats: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> html.Div:
    """A table that sorts and filters in the browser; a click (or Space) on a row fills `selectedRows`.

    Args:
        label: what screen readers call it.
        tokens: columns that hold decoded tokens.
        formats: d3 format by column of numbers; default three significant digits.
        headers: column titles; default the column's name.
    """
    formats, headers = formats or {}, headers or {}
    shown = frame.head(MAX_ROWS).copy()
    for column in tokens:
        shown[column] = [visible(str(token)) for token in shown[column]]
    rows = shown.astype(object).where(shown.notna(), None).to_dict("records")
    columns = [
        _column(name, headers.get(name, name.replace("_", " ")), shown[name], formats.get(name, ""))
        | ({"cellClass": "token-cell"} if name in tokens else {})
        for name in shown.columns
    ]
    # A card is seen whole; in a long list one scrolls.
    n_seen = len(rows) if len(rows) <= WHOLE_ROWS else SEEN_ROWS
    pixels = n_seen * ROW_HEIGHT + 54
    options: dict[str, Any] = {} if id is None else {"id": id}
    grid = dag.AgGrid(
        **options,
        rowData=[{"row": index, **row} for index, row in enumerate(rows)],
        columnDefs=columns,
        defaultColDef={"sortable": True, "resizable": True, "filter": True},
        dashGridOptions={
            "rowHeight": ROW_HEIGHT,
            "headerHeight": 34,
            "rowSelection": {
                "mode": "singleRow",
                "checkboxes": False,
                "enableClickSelection": True,
            },
            "suppressFieldDotNotation": True,
            "animateRows": False,
        },
        style={"height": f"{pixels}px", "width": "100%"},
        className="data-table",
    )
    return html.Div(grid, role="region", **aria(label))


def _column(name: str, header: str, values: pd.Series, form: str) -> dict[str, Any]:
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    longest = 8 if is_number else int(values.astype(str).str.len().max() or 1)
    width = 34 + 7.5 * min(max(len(header) + 5, longest), WIDEST)
    # Columns share what is left over; where nothing is, the table scrolls sideways.
    column = {"field": name, "headerName": header, "minWidth": round(width), "flex": round(width)}
    if not is_number:
        return column
    form = form or ("d" if pd.api.types.is_integer_dtype(values) else ".3~g")
    function = f"params.value == null ? '' : d3.format('{form}')(params.value)"
    return column | {
        "type": "rightAligned",
        "filter": "agNumberColumnFilter",
        "valueFormatter": {"function": function},
    }
