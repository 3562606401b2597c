"""What the address of the reports page says: a report and how its numbers are looked at, or a form half filled.

report  measure  of  whose  order  where   new  models  steps  probes  data  title          find
"""

from collections.abc import Mapping
from typing import Any

from app.fields import Field, PageState, choice, text
from app.report_filters import read_filter, read_sorts
from app.report_findings import LARGEST
from workbench.errors import ConfigError, WorkbenchError

MAX_FIND, MAX_NAMES = 120, 4000


def _order(given: Any) -> str:
    return ",".join(
        f"{column}:{way}" for column, way in read_sorts(str(given) if given is not None else "")
    )


def _where(given: Any) -> str:
    if given in ("", "{}"):
        return ""
    read_filter(given)
    return str(given)


def _unicode(field: Field) -> Field:
    """The same, refusing halves of characters, which nothing can be written with."""

    def parse(given: Any) -> Any:
        value = field.parse(given)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{field.name} is not valid Unicode at {error.start}") from error
        return value

    return Field(field.name, parse, field.default)


SHOWN = (
    _unicode(text("measure", limit=200)),
    _unicode(text("of", LARGEST, limit=200)),
    _unicode(text("whose", limit=400)),
    Field("order", _order, ""),
    Field("where", _where, ""),
)
ASKED = (
    _unicode(text("models", "", limit=MAX_NAMES)),
    choice("steps", ("final", "all")),
    _unicode(text("probes", "", limit=MAX_NAMES)),
    _unicode(text("data", "stdlib", limit=MAX_NAMES)),
    _unicode(text("title", limit=120)),
)
FIND = (_unicode(text("find", limit=MAX_FIND)),)


def read_fields(fields: tuple[Field, ...], given: Any) -> tuple[PageState, list[str]]:
    """The value of every field, and a complaint for each that cannot be meant."""
    state: PageState = {field.name: field.default for field in fields}
    if not isinstance(given, Mapping):
        return state, ["the address could not be read"]
    complaints = []
    for field in fields:
        value = given.get(field.name)
        if value is None:
            continue
        try:
            state[field.name] = field.parse(value)
        except WorkbenchError as error:
            complaints.append(str(error))
    return state, complaints


def names(listed: str) -> tuple[str, ...]:
    """Names with commas between them, each once."""
    return tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
