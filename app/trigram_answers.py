"""What the circuits page asks of skip-trigrams: the list, what it implies, and how it fares in text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from app.analyses import Desk
from app.circuit_answers import chosen_head, found_tokens
from app.jobs import Progress
from workbench.models.protocol import Model
from workbench.trigrams.counts import Occurrences, occurrences
from workbench.trigrams.listing import Bugs, SkipTrigrams, bugs, skip_trigrams

Given = Mapping[str, Any]
PLACES = ("source", "destination", "out")
N_TRIGRAMS, N_MEASURED = 60, 8


@dataclass(frozen=True, eq=False)
class Trigrams:
    """Listed skip-trigrams and those that pairs of them imply."""

    listed: SkipTrigrams
    implied: Bugs

    def table(self) -> pd.DataFrame:
        """As of both, with `kind`: "listed" or "implied"."""
        frames = [
            self.listed.table().assign(kind="listed"),
            self.implied.table().assign(kind="implied"),
        ]
        return pd.concat(frames, ignore_index=True)


def trigrams(model: Model, given: Given, report: Progress) -> Trigrams:
    """The skip-trigrams of the chosen head with the given tokens, highest score first."""
    listed = _listed(model, given, report)
    return Trigrams(listed, bugs(listed))


def counted(model: Model, given: Given, desk: Desk) -> Occurrences:
    """How often the listed trigrams occur in held-out text and, of real heads, what their source does there."""
    found = desk.other("circuit-trigrams", given, trigrams)
    n_measured = 0 if given["earlier"] else N_MEASURED
    said = desk.counting("Hiding sources in held-out text")
    return occurrences(model, found.listed, n_measured=n_measured, progress=said)


def _listed(model: Model, given: Given, report: Progress) -> SkipTrigrams:
    tokens = {place: found_tokens(model, given[place])[0] for place in PLACES if given[place]}
    weights, head = chosen_head(model, given)
    # Next to each other by default: a rotary head at distance 0 would attend to itself.
    offset = max(1, given["offset"]) if weights.cfg.positions == "rotary" else None
    said = report.counting("Ranking skip-trigrams")
    return skip_trigrams(weights, head, k=N_TRIGRAMS, offset=offset, progress=said, **tokens)
