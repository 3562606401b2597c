"""Fields that say of themselves what they may be: checks and forms are both made from their metadata.

    lr: float = stated(2e-3, kind="number", unit="", hint="…", low=0, high=100)

Metadata: kind, unit, hint, low, high, choices, optional. A value is refused by the name of its field.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workbench.errors import ConfigError

Kind = Literal["number", "whole", "wholes", "choice", "text", "flag", "network"]
MAX_TEXT = 1 << 16


class PlanError(ConfigError):
    """A field of a plan that cannot be meant; `field` is its name, `network.d_model` for one of the network."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


def stated(
    default: Any,
    *,
    kind: Kind,
    unit: str = "",
    hint: str,
    bounds: tuple[int | float | None, int | float | None] = (None, None),
    choices: Sequence[str] | None = None,
) -> Any:
    """A dataclass field with what a form and a check need to know; None as default makes it optional.

    Args:
        default: `dataclasses.MISSING` where there is none.
        bounds: lowest and highest value; of a text, its length.
        choices: the words that it takes.
    """
    metadata: dict[str, Any] = {
        "kind": kind,
        "unit": unit,
        "hint": hint,
        "low": bounds[0],
        "high": bounds[1],
    }
    metadata |= {"choices": tuple(choices) if choices else None, "optional": default is None}
    return dataclasses.field(default=default, metadata=metadata)


def check_fields(value: Any, prefix: str = "") -> None:
    """Refuse the first field whose value its metadata does not admit.

    Raises:
        PlanError: names the field, what it may be, and what was given.
    """
    for each in dataclasses.fields(value):
        given = getattr(value, each.name)
        if given is None and each.metadata["optional"]:
            continue
        wrong = _wrong(given, each.metadata)
        if wrong:
            raise PlanError(f"{prefix}{each.name}", f"must be {wrong}, not {given!r:.60}")


def _wrong(given: Any, about: Mapping[str, Any]) -> str:
    """What a value should have been; empty where it is."""
    kind, low, high = about["kind"], about["low"], about["high"]
    if kind == "number":
        is_fine = isinstance(given, int | float) and not isinstance(given, bool)
        # Comparisons with NaN are false.
        return "" if is_fine and low <= given <= high else f"a number from {low:g} to {high:g}"
    if kind == "whole":
        return "" if _is_whole(given, low, high) else f"a whole number from {low:,} to {high:,}"
    if kind == "wholes":
        is_fine = isinstance(given, tuple) and len(given) <= 64
        is_fine = is_fine and all(_is_whole(each, low, high) for each in given)
        return "" if is_fine else f"up to 64 whole numbers from {low:,} to {high:,}"
    if kind == "choice":
        is_fine = isinstance(given, str) and given in about["choices"]
        return "" if is_fine else f"one of {', '.join(about['choices'])}"
    if kind == "flag":
        return "" if isinstance(given, bool) else "true or false"
    if kind == "text":
        is_fine = isinstance(given, str) and low <= len(given.strip()) and len(given) <= high
        is_fine = is_fine and given.isprintable()
        return "" if is_fine else f"{low} to {high} printable characters"
    return ""


def _is_whole(given: Any, low: int, high: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and low <= given <= high


def as_plain(value: Any) -> dict[str, Any]:
    """Every field as JSON has it."""
    plain = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return {name: list(x) if isinstance(x, tuple) else x for name, x in plain.items()}


def from_plain(kind: type, given: Mapping[str, Any], prefix: str = "") -> Any:
    """A value from what JSON gave; lists become tuples.

    Raises:
        PlanError: unknown or missing fields, or values that cannot be meant.
    """
    known = {each.name: each for each in dataclasses.fields(kind)}
    for name in given:
        if name not in known:
            raise PlanError(
                f"{prefix}{str(name)[:40]}", f"is unknown: there are {', '.join(known)}"
            )
    for name, each in known.items():
        if name not in given and each.default is dataclasses.MISSING:
            raise PlanError(f"{prefix}{name}", "is missing")
    return kind(**{name: tuple(x) if isinstance(x, list) else x for name, x in given.items()})


def read_object(text: str) -> dict[str, Any]:
    """A JSON object, every name in it once.

    Raises:
        ConfigError: anything else.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(
            f"the plan is {len(text):,} characters long; no plan is over {MAX_TEXT:,}"
        )
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the plan is not JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"the plan must be a JSON object, not {type(found).__name__}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(name[:40], "stands more than once in the plan")
    return dict(pairs)
