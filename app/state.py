"""What a dashboard address says: which view of which model, and which head of it is chosen.

Everything in a query string is text that anyone may have written. Reading it never fails: what cannot be
meant falls back to a default and leaves a complaint that the page shows.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlencode

from workbench.errors import PromptError, SiteError
from workbench.sites import Head

DEFAULT_MODEL = "attn-2l"
MAX_PROMPT_CHARS = 20_000
MAX_PROMPTS = 64
MAX_STEP = 10**9


@dataclass(frozen=True)
class Kind:
    """One way to look at a prompt.

    Args:
        label: what the selector says.
        explains: what the numbers are, in one sentence.
    """

    label: str
    explains: str
    needs_other: bool = False
    needs_steps: bool = False


KINDS: dict[str, Kind] = {
    "pattern": Kind(
        "Attention pattern", "How much each query position attends to each key; rows sum to 1."
    ),
    "value-weighted": Kind(
        "Value-weighted pattern",
        "Attention times the size of the value vector it moves: what a head really reads.",
    ),
    "scores": Kind(
        "Scores before softmax",
        "The logits of attention, each minus its row's mean: signed, the background colour is zero.",
    ),
    "mean": Kind(
        "Mean over prompts",
        "The average pattern over prompts, one a line, as far as the shortest one reaches.",
    ),
    "difference": Kind(
        "Difference of two prompts",
        "Pattern on this prompt minus pattern on the one below it; tokens are aligned by content.",
        needs_other=True,
    ),
    "training": Kind(
        "Difference of two checkpoints",
        "Pattern at one training step minus pattern at an earlier one.",
        needs_steps=True,
    ),
}


@dataclass(frozen=True)
class View:
    """What is computed: equal views have equal keys, in every process.

    Args:
        step: training step of the weights; None is the finished model.
        before: the step that a difference of checkpoints subtracts.
        other: the prompt that a difference of prompts subtracts.
    """

    model: str = DEFAULT_MODEL
    prompt: str = ""
    kind: str = "pattern"
    other: str = ""
    step: int | None = None
    before: int | None = None

    @property
    def key(self) -> str:
        """A hash of the view's content: 32 hexadecimal digits."""
        text = json.dumps(asdict(self.normal()), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def prompts(self) -> list[str]:
        """The prompts of a mean: the lines that are not blank."""
        return [line for line in self.prompt.splitlines() if line.strip()]

    def normal(self) -> "View":
        """The same view without the fields that its kind does not read."""
        kind = KINDS[self.kind]
        return replace(
            self,
            other=self.other if kind.needs_other else "",
            before=self.before if kind.needs_steps else None,
        )

    def check(self) -> None:
        """Refuse what is too large to be tried.

        Raises:
            PromptError: too many characters, or too many prompts.
        """
        for text in (self.prompt, self.other):
            if len(text) > MAX_PROMPT_CHARS:
                raise PromptError(
                    f"the prompt has {len(text):,} characters; the dashboard takes {MAX_PROMPT_CHARS:,}: "
                    "shorten it, or use workbench.run in Python"
                )
        if self.kind == "mean" and len(self.prompts) > MAX_PROMPTS:
            raise PromptError(
                f"{len(self.prompts)} prompts; a mean takes at most {MAX_PROMPTS}: remove some lines"
            )
        if self.kind == "mean" and not self.prompts:
            raise PromptError("the prompt is empty: write one prompt a line")


@dataclass(frozen=True)
class Selection:
    """Which head of a view is looked at, and which token of it is held."""

    head: Head | None = None
    is_locked: bool = False
    pos: int | None = None

    def as_viewer_state(self) -> dict[str, Any]:
        """The state as the viewer component writes it."""
        layer, head = (self.head.layer, self.head.head) if self.head else (None, None)
        return {"layer": layer, "head": head, "locked": self.is_locked, "pos": self.pos}


def read_view(given: Any, default: View) -> tuple[View, list[str]]:
    """The view meant by a mapping of plain values, and a complaint for each that cannot be meant."""
    if not isinstance(given, Mapping):
        return default, ["the address could not be read"] if given is not None else []
    complaints: list[str] = []
    values: dict[str, Any] = {}
    for field in ("model", "prompt", "other"):
        text = given.get(field)
        if isinstance(text, str):
            values[field] = text
        elif text is not None:
            complaints.append(f"{field} must be text")
    kind = given.get("kind") or given.get("view")
    if kind is not None and str(kind) not in KINDS:
        complaints.append(f"no view {str(kind)[:40]!r}: there are {', '.join(KINDS)}")
    elif kind is not None:
        values["kind"] = str(kind)
    for field in ("step", "before"):
        value = given.get(field)
        if value in (None, "", "final"):
            values[field] = None if value else getattr(default, field)
            continue
        if (number := _whole(value, MAX_STEP)) is None:
            complaints.append(f"{field} {str(value)[:40]!r} is not a training step")
        else:
            values[field] = number
    return replace(default, **values), complaints


def read_selection(given: Mapping[str, Any]) -> tuple[Selection, list[str]]:
    """The head and token meant by a query, and a complaint for each that cannot be meant."""
    complaints: list[str] = []
    head = pos = None
    if given.get("head"):
        try:
            head = Head.parse(str(given["head"]))
        except SiteError as error:
            complaints.append(str(error))
    if given.get("pos"):
        pos = _whole(given["pos"], MAX_PROMPT_CHARS)
        if pos is None:
            complaints.append(f"pos {str(given['pos'])[:40]!r} is not a token position")
    return Selection(head, given.get("locked") == "1", pos), complaints


def to_query(view: View, selection: Selection | None = None) -> str:
    """The query string of a view, as the page writes it into the address bar."""
    view = view.normal()
    items: list[tuple[str, Any]] = [
        ("model", view.model),
        ("prompt", view.prompt),
        ("view", view.kind),
    ]
    items += [
        (name, value)
        for name in ("other", "step", "before")
        if (value := getattr(view, name)) not in (None, "")
    ]
    if KINDS[view.kind].needs_steps and view.before is None:
        items.append(("before", "final"))
    if selection and selection.head:
        items.append(("head", str(selection.head)))
        items += [("locked", "1")] if selection.is_locked else []
        items += [("pos", selection.pos)] if selection.pos is not None else []
    return urlencode(items)


def _whole(value: Any, limit: int) -> int | None:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,10}", str(value), re.ASCII):
        return None
    return int(value) if int(value) <= limit else None
