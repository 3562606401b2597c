"""Cards of heads: for those that differ from chance in most ways, what every probe says of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from probes.report.discovery import at_most, passing, ranked
from probes.report.results import Results
from probes.report.tables import Table, findings_rows, number, shown

MOST_HEADS, MOST_ROWS, N_NAMED = 6, 40, 3
WAYS = ["probe", "measure", "site"]


@dataclass(frozen=True)
class Card:
    """One head.

    Args:
        said: in how many ways it differs from chance, and in which most.
    """

    head: str
    said: str
    table: Table


def cards_by_model(results: Results, findings: pd.DataFrame) -> dict[str, tuple[Card, ...]]:
    """Of each model some heads; models without heads are left out."""
    found = {}
    for label in results.side_by_side:
        cards = tuple(_cards(findings[findings["model"] == label]))
        if cards:
            found[label] = cards
    return found


def _cards(of_model: pd.DataFrame) -> Iterator[Card]:
    own = passing(of_model)
    own = own[own["layer"].notna() & own["head"].notna()]
    ways = own.drop_duplicates(["layer", "head", *WAYS]).groupby(["layer", "head"]).size()
    # Ties stay in the order of the model.
    for layer, head in ways.sort_values(ascending=False, kind="stable").index[:MOST_HEADS]:
        yield _card(of_model, int(layer), int(head))


def _card(of_model: pd.DataFrame, layer: int, head: int) -> Card:
    name = f"{layer}.{head}"
    is_own = ((of_model["layer"] == layer) & (of_model["head"] == head)).fillna(False).astype(bool)
    # A writer stands as the item of whoever reads it.
    is_item = (of_model["item"] == name) & of_model["head"].notna()
    of = ranked(of_model[is_own | is_item])
    own = passing(of[is_own[of.index]]).drop_duplicates(WAYS)
    order = {probe: at for at, probe in enumerate(dict.fromkeys(of_model["probe"]))}
    strongest = at_most(of, 1, tuple(WAYS))
    chosen = strongest.sort_values("probe", key=lambda names: names.map(order), kind="stable")
    kept = chosen.head(MOST_ROWS)
    note = (
        f"Of each measure the row of least q, {len(kept)} of {len(of):,} rows about this head; "
        "where an item is given, it may be the writer or the reader."
    )
    # Measures side by side: effects over different nulls do not compare.
    farthest = ranked(own, by=("prominence",)).drop_duplicates("measure").head(N_NAMED)
    named = ", ".join(
        f"{shown(row.measure, 40)} {number(row.value, 3)}" for row in farthest.itertuples()
    )
    counts = f"{len(own)} measures pass, {len(passing(of)):,} of {len(of):,} findings"
    said = f"{counts}; standing out most: {named}"
    return Card(name, said, findings_rows(kept, note, without=("model", "prominence")))
