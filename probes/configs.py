"""Configs of probes: frozen dataclasses of plain values, checked when they are made, read from words."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from workbench.errors import ConfigError


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no whole number of a range.

    Raises:
        ConfigError: says the range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(
            f"{name} must be a whole number from {low} to {high:,}, not {value!r:.60}"
        )


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Refuse what is no number of a range.

    Raises:
        ConfigError: says the range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}, not {value!r:.60}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is not among the choices.

    Raises:
        ConfigError: lists them.
    """
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r:.60}")


def make_config(probe: Any, given: Mapping[str, Any]) -> Any:
    """A probe's config, with some of its fields given; lists become tuples.

    Raises:
        ConfigError: a field that it does not have, or a value that cannot be meant.
    """
    known = [field.name for field in fields(probe.Config)]
    if unknown := [str(name) for name in given if name not in known]:
        raise ConfigError(
            f"{probe.name} has no setting {unknown[0][:40]!r}: it has {', '.join(known)}"
        )
    plain = {name: _tupled(value) for name, value in given.items()}
    try:
        return probe.Config(**plain)
    except ConfigError as error:
        raise ConfigError(f"{probe.name}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{probe.name} cannot be set so: {error}") from error


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def config_json(config: Any) -> str:
    """The config as one line of JSON that is equal for equal configs."""
    return json.dumps(asdict(config), sort_keys=True, allow_nan=False)
