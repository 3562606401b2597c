"""What a page's address may say: named fields with a type, a default and limits.

Everything in an address, and everything that a browser sends back, is text that anyone may have written.
Reading it never fails: what cannot be meant falls back to a default and leaves a complaint that the page
shows. The values are plain (text, numbers, None), so a state can be kept in the browser as it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from app.initial import model_of
from app.prompts import first_prompt
from app.session import Session
from app.state import MAX_PROMPT_CHARS, MAX_STEP
from workbench.errors import ConfigError, WorkbenchError
from workbench.models import ModelInfo
from workbench.sites import Head

PageState = dict[str, Any]
Lasts = Literal["always", "model", "prompt"]
Default = Callable[[Session, ModelInfo], Any]


@dataclass(frozen=True)
class Field:
    """One field of an address.

    Args:
        parse: from what was given to the value; raises WorkbenchError where nothing can be meant.
        default: a value, or a function of session and model that chooses one.
        lasts: whether the value keeps its meaning with another prompt ("model") or model ("always");
            where it does not, the page falls back to the default.
        is_place: whether the browser's Back returns to an earlier value.
    """

    name: str
    parse: Callable[[Any], Any]
    default: Any = None
    lasts: Lasts = "always"
    is_place: bool = False

    def first(self, session: Session, info: ModelInfo) -> Any:
        """The value where the address says nothing."""
        return self.default(session, info) if callable(self.default) else self.default


def text(name: str, default: Any = "", *, limit: int = 200, lasts: Lasts = "always") -> Field:
    """Text of at most so many characters."""

    def parse(given: Any) -> str:
        if not isinstance(given, str):
            raise ConfigError(f"{name} must be text")
        if len(given) > limit:
            raise ConfigError(
                f"{name} has {len(given):,} characters; the dashboard takes {limit:,}"
            )
        return given

    return Field(name, parse, default, lasts)


def choice(
    name: str, options: Sequence[str], *, default: str | None = None, is_place: bool = False
) -> Field:
    """One of some words; the first is the default unless another is given."""

    def parse(given: Any) -> str:
        if given not in options:
            raise ConfigError(f"no {name} {_quoted(given)}: there are {', '.join(options)}")
        return str(given)

    return Field(name, parse, default or options[0], is_place=is_place)


def whole(
    name: str,
    default: int | None = None,
    *,
    low: int = 0,
    high: int = 10**9,
    lasts: Lasts = "always",
) -> Field:
    """A whole number within limits; None (nothing chosen) only if that is the default."""

    def parse(given: Any) -> int:
        try:
            is_plain = isinstance(given, float) and given.is_integer()
            value = int(given) if is_plain else int(str(given))
        except ValueError:
            raise ConfigError(f"{name} {_quoted(given)} is not a whole number") from None
        if not low <= value <= high:
            raise ConfigError(f"{name} {_quoted(given)} is not between {low} and {high}")
        return value

    return Field(name, parse, default, lasts)


def number(name: str, default: float, *, low: float, high: float) -> Field:
    """A number within limits."""

    def parse(given: Any) -> float:
        try:
            value = float(str(given))
        except ValueError:
            raise ConfigError(f"{name} {_quoted(given)} is not a number") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise ConfigError(f"{name} {_quoted(given)} is not between {low:g} and {high:g}")
        return value

    return Field(name, parse, default)


def head(name: str = "head") -> Field:
    """A head as `layer.head`; default the one that the model's card shows first, else 0.0."""

    def default(session: Session, info: ModelInfo) -> str:
        return str(session.first_head(info.name) or Head(0, 0))

    def parse(given: Any) -> str:
        return str(Head.parse(str(given)))

    return Field(name, parse, default, "model", is_place=True)


def _first_prompt(session: Session, info: ModelInfo) -> str:
    return first_prompt(info, "pattern")


PROMPT = replace(text("prompt", _first_prompt, limit=MAX_PROMPT_CHARS), is_place=True)


def read_state(
    session: Session, fields: Sequence[Field], given: Any
) -> tuple[PageState, ModelInfo, list[str]]:
    """What a mapping of plain values means to a page: all fields, `model` and `step`; its model; complaints.

    Raises:
        WorkbenchError: there is no model at all.
    """
    complaints: list[str] = []
    if not isinstance(given, Mapping):
        given, complaints = {}, ["the address could not be read"]
    info, said = model_of(session, given.get("model"))
    complaints += said
    state: PageState = {"model": info.name, "step": None}
    for field in (_step(info), *fields):
        value = given.get(field.name)
        # An empty text is a value; an empty anything else is none.
        if value is None or (value == "" and not isinstance(field.first(session, info), str)):
            state[field.name] = field.first(session, info)
            continue
        try:
            state[field.name] = field.parse(value)
        except WorkbenchError as error:
            complaints.append(str(error))
            state[field.name] = field.first(session, info)
    return state, info, complaints


def _step(info: ModelInfo) -> Field:
    def parse(given: Any) -> int | None:
        if given == "final":
            return None
        step = int(whole("step", high=MAX_STEP).parse(given))
        if step not in info.steps:
            kept = ", ".join(map(str, info.steps)) or "none"
            raise ConfigError(f"{info.name} has no checkpoint of step {step}: it keeps {kept}")
        return step

    return Field("step", parse)


def _quoted(given: Any) -> str:
    return repr(str(given)[:40])
