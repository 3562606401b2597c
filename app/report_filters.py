"""From what a grid asks (sorting, filters, a block of rows) to SQL with bound values.

Nothing of the request stands in the SQL text: columns come from the list below, everything else is a parameter.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import ConfigError

TEXTS = ("model", "probe", "measure", "site", "item", "unit")
NUMBERS = (
    "layer", "head", "value", "null_mean", "null_std", "effect", "p", "q", "low", "high", "n", "step", "seed",
)  # fmt: skip
COLUMNS = (
    "model", "probe", "measure", "layer", "head", "site", "item", "value", "unit", "null_mean", "null_std",
    "effect", "p", "q", "low", "high", "n", "step", "seed",
)  # fmt: skip
MAX_CONDITIONS, MAX_CHARS, MAX_SORTS, MAX_BLOCK = 20, 200, 5, 1000
MAX_JSON = 4000
_COMPARED = {
    "equals": "=",
    "notEqual": "!=",
    "lessThan": "<",
    "lessThanOrEqual": "<=",
    "greaterThan": ">",
    "greaterThanOrEqual": ">=",
}
# Of lower-case text, as the grid's own filters compare.
_WORDS: dict[str, str] = {
    "contains": "contains(lower({0}), ?)",
    "notContains": "NOT contains(lower({0}), ?)",
    "equals": "lower({0}) = ?",
    "notEqual": "lower({0}) != ?",
    "startsWith": "starts_with(lower({0}), ?)",
    "endsWith": "ends_with(lower({0}), ?)",
}
FilterModel = dict[str, Any]
Sorts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asked:
    """One block of rows.

    Args:
        where: SQL with question marks, for `values`.
        order: SQL.
    """

    where: str
    values: tuple[Any, ...]
    order: str
    first: int = 0
    count: int = 100


def read_request(given: Any) -> Asked:
    """What a grid asks for.

    Raises:
        ConfigError: something that no grid of ours sends.
    """
    if not isinstance(given, Mapping):
        raise ConfigError("the table asked for no rows: open the page again")
    first, end = _whole(given.get("startRow")), _whole(given.get("endRow"))
    if first is None or end is None or not 0 < end - first <= MAX_BLOCK:
        raise ConfigError(f"rows come in blocks of 1 to {MAX_BLOCK:,}")
    where, values = where_of(given.get("filterModel") or {})
    return Asked(where, values, order_of(read_sorts(given.get("sortModel"))), first, end - first)


def where_of(model: Any) -> tuple[str, tuple[Any, ...]]:
    """The condition of a filter model, and its values.

    Raises:
        ConfigError: an unknown column or kind of filter, or too many.
    """
    if not isinstance(model, Mapping):
        raise ConfigError("the filter must be conditions by column")
    parts: list[str] = []
    values: list[Any] = []
    for column, given in model.items():
        part, found = _of_column(_known(column), given)
        parts.append(part)
        values += found
        if len(parts) + len(values) > 2 * MAX_CONDITIONS:
            raise ConfigError(f"a filter has at most {MAX_CONDITIONS} conditions")
    return " AND ".join(parts) or "TRUE", tuple(values)


def _of_column(column: str, given: Any) -> tuple[str, list[Any]]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"the filter of {column} cannot be read")
    if "operator" not in given:
        return _condition(column, given)
    operator, conditions = given["operator"], given.get("conditions")
    if operator not in ("AND", "OR") or not isinstance(conditions, Sequence):
        raise ConfigError(f"the filter of {column} joins its conditions by AND or OR")
    if not 0 < len(conditions) <= MAX_CONDITIONS:
        raise ConfigError(f"a filter has 1 to {MAX_CONDITIONS} conditions")
    if not all(isinstance(one, Mapping) and "operator" not in one for one in conditions):
        raise ConfigError(f"the filter of {column} cannot be read")
    found = [_condition(column, one) for one in conditions]
    text = f" {operator} ".join(part for part, _ in found)
    return f"({text})", [value for _, some in found for value in some]


def _condition(column: str, given: Mapping[str, Any]) -> tuple[str, list[Any]]:
    kind, name = given.get("type"), f'"{column}"'
    is_text = column in TEXTS
    if kind in ("blank", "notBlank"):
        negation = "NOT " if kind == "notBlank" else ""
        return f"{negation}({name} IS NULL" + (f" OR {name} = '')" if is_text else ")"), []
    if is_text:
        if not isinstance(kind, str) or kind not in _WORDS:
            raise ConfigError(_no_kind(column, kind, _WORDS))
        return _WORDS[kind].format(name), [_text(column, given.get("filter"))]
    if kind == "inRange":
        ends = [_number(column, given.get(end)) for end in ("filter", "filterTo")]
        return f"({name} > ? AND {name} < ?)", list(ends)
    if not isinstance(kind, str) or kind not in _COMPARED:
        raise ConfigError(_no_kind(column, kind, (*_COMPARED, "inRange")))
    return f"{name} {_COMPARED[kind]} ?", [_number(column, given.get("filter"))]


def _no_kind(column: str, kind: Any, known: Any) -> str:
    return (
        f"no filter {str(kind)[:40]!r} of {column}: there are {', '.join(known)}, blank, notBlank"
    )


def read_sorts(given: Any) -> Sorts:
    """Columns and directions, from a grid's model or from `value:desc,layer:asc`.

    Raises:
        ConfigError: an unknown column or direction.
    """
    if isinstance(given, str):
        pairs = [word.partition(":")[::2] for word in given.split(",") if word]
        given = [{"colId": column, "sort": way} for column, way in pairs]
    if given is None:
        given = []
    if not isinstance(given, Sequence) or not all(isinstance(one, Mapping) for one in given):
        raise ConfigError("the sorting cannot be read: write column:asc or column:desc")
    if len(given) > MAX_SORTS:
        raise ConfigError(f"rows are sorted by at most {MAX_SORTS} columns")
    found = []
    for one in given:
        if one.get("sort") not in ("asc", "desc"):
            raise ConfigError(f"rows are sorted asc or desc, not {str(one.get('sort'))[:40]!r}")
        found.append((_known(one.get("colId")), str(one["sort"])))
    return tuple(found)


def order_of(sorts: Sorts) -> str:
    """The order, with the rows' own as the last: blocks of one table must fit together."""
    ways = [f'"{column}" {way.upper()} NULLS LAST' for column, way in sorts]
    return ", ".join([*ways, '"row"'])


def read_filter(given: Any) -> FilterModel:
    """A filter model from an address, as JSON text.

    Raises:
        ConfigError: anything that is none.
    """
    if not isinstance(given, str) or len(given) > MAX_JSON:
        raise ConfigError(f"the filter must be text of at most {MAX_JSON:,} characters")
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        raise ConfigError(f"the filter {given[:40]!r} cannot be read") from None
    where_of(found)
    return dict(found)


def _known(column: Any) -> str:
    if column not in COLUMNS:
        raise ConfigError(f"no column {str(column)[:40]!r}: there are {', '.join(COLUMNS)}")
    return str(column)


def _text(column: str, given: Any) -> str:
    if not isinstance(given, str) or len(given) > MAX_CHARS or not _is_unicode(given):
        raise ConfigError(f"the filter of {column} must be text of at most {MAX_CHARS} characters")
    return given.lower()


def _number(column: str, given: Any) -> float:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or abs(given) > 1e300 or not math.isfinite(given):
        raise ConfigError(f"the filter of {column} must be a number, not {str(given)[:40]!r}")
    return float(given)


def _whole(given: Any) -> int | None:
    is_whole = isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 10**9
    return given if is_whole else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
