"""Skip-trigrams of `attn-1l` read from its weights, and whether text bears them out; the bugs they imply.

A list is ranked by weights alone (`workbench.trigrams.listing`), then counted and measured in the held-out text
(`workbench.trigrams.counts`). A bug of two skip-trigrams that text confirms, a … b → c and a … d → e, is
a … b → e: the head cannot raise the two without it (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits", "Skip-trigram bugs").
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool

from workbench.models.protocol import Model
from workbench.sites import Head
from workbench.trigrams.counts import occurrences
from workbench.trigrams.listing import SkipTrigrams, bugs, skip_trigrams
from workbench.weights import effective_weights

LEAST_SEEN, LEAST_FOLLOWED = 10, 3
_COLUMNS = ("source", "destination", "out", "attention", "output")


def listed_trigrams(
    model: Model, heads: tuple[Head, ...], k: int, n_measured: int, seed: int
) -> pd.DataFrame:
    """The k highest-scoring skip-trigrams of each head, with their counts and effects."""
    weights = effective_weights(model)
    frames = []
    for head in heads:
        found = skip_trigrams(weights, head, k=k)
        table = occurrences(model, found, n_measured=n_measured, seed=seed).table()
        frames.append(table.assign(head=str(head)))
    return _tidy(frames)


def confirmed_and_bugs(
    model: Model, heads: tuple[Head, ...], k: int, n_measured: int, seed: int
) -> pd.DataFrame:
    """Of the k highest per head: bugs that the text can refute, and the confirmed skip-trigrams behind them.

    Confirmed: the source stands before the destination 10 times or more, the out follows 3 times or more,
    and oftener than after the destination at large (its whole 95 % interval). Column `kind` says which.
    """
    weights = effective_weights(model)
    frames = []
    for head in heads:
        found = skip_trigrams(weights, head, k=k, per_source=20)
        counted = occurrences(model, found, n_measured=0).table()
        confirmed = _chosen(found, is_confirmed(counted))
        implied = bugs(confirmed)
        counted = occurrences(model, implied, n_measured=0).table()
        testable = _chosen(implied, (counted["n"] >= LEAST_SEEN).to_numpy())
        behind = _chosen(confirmed, _is_behind(confirmed, testable))
        for kind, trigrams in (("bug", testable), ("confirmed", behind)):
            table = occurrences(model, trigrams, n_measured=n_measured, seed=seed).table()
            frames.append(table.assign(kind=kind, head=str(head)))
    return _tidy(frames)


def is_confirmed(counted: pd.DataFrame) -> Bool[np.ndarray, " trigram"]:
    """Whether text bears a skip-trigram out."""
    often = (counted["n"] >= LEAST_SEEN) & (counted["n_followed"] >= LEAST_FOLLOWED)
    return (often & (counted["low"] > counted["chance"])).to_numpy()


def summary(listed: pd.DataFrame) -> pd.DataFrame:
    """Per head and over all: shares of the listed skip-trigrams that occur, are true, and work."""
    rows = [_shares(table, head) for head, table in listed.groupby("head")]
    return pd.DataFrame([*rows, _shares(listed, "all")])


def bug_summary(judged: pd.DataFrame) -> pd.DataFrame:
    """Bugs beside the confirmed skip-trigrams behind them: how often true, how strongly raised."""
    rows = []
    for kind, table in judged.groupby("kind", sort=False):
        rows.append(
            {
                "kind": kind,
                "n": len(table),
                "n_places": int(table["n"].sum()),
                "never_followed": float((table["n_followed"] == 0).mean()),
                "not_above_chance": float((table["rate"] <= table["chance"]).mean()),
                "raised": float((table["effect"] > 0).mean()),
                "raised_surely": float((table["effect_low"] > 0).mean()),
                "effect": float(table["effect"].median()),
                "helps": float((table["gain"] > 0).mean()),
            }
        )
    return pd.DataFrame(rows)


def _shares(table: pd.DataFrame, head: str) -> dict[str, float | str]:
    measured = table[table["n_measured"] > 0]
    often = table[table["n"] >= LEAST_SEEN]
    return {
        "head": head,
        "n": len(table),
        "never_together": float((table["n"] == 0).mean()),
        "never_followed": float((table["n_followed"] == 0).mean()),
        "n_often": len(often),
        "confirmed": float(is_confirmed(often).mean()) if len(often) else np.nan,
        "unattended": float((measured["attended"] < 0.01).mean()),
        "raised": float((measured["effect"] > 0).mean()),
        "effect": float(measured["effect"].median()),
        "helps": float((measured["gain"] > 0).mean()),
    }


def _chosen(trigrams: SkipTrigrams, keep: Bool[np.ndarray, " trigram"]) -> SkipTrigrams:
    changed = {name: getattr(trigrams, name)[keep] for name in _COLUMNS}
    if hasattr(trigrams, "because"):
        changed["because"] = tuple(
            pair for pair, kept in zip(trigrams.because, keep, strict=True) if kept
        )
    return replace(trigrams, **changed)


def _is_behind(confirmed: SkipTrigrams, implied: SkipTrigrams) -> Bool[np.ndarray, " trigram"]:
    """Which of the confirmed imply one of the bugs."""
    destinations = {(source, destination) for source, destination, _ in implied.triples}
    outs = {(source, out) for source, _, out in implied.triples}
    return np.array(
        [(a, b) in destinations or (a, c) in outs for a, b, c in confirmed.triples], dtype=bool
    )


def _tidy(frames: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(frames, ignore_index=True)
    first = [name for name in ("head", "kind") if name in table]
    ids = [f"{place}_id" for place in ("source", "destination", "out")]
    return table[[*first, *(name for name in table if name not in (*first, *ids, "unit")), *ids]]
