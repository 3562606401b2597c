"""How the circuits page shows skip-trigrams."""

from typing import Any

from dash import html

from app.fields import PageState
from app.tables import data_table
from app.trigram_answers import PLACES, Trigrams
from workbench.trigrams.counts import Occurrences

SHOWN = (*PLACES, "score", "attention", "output")
# What is counted first; the rest is in the files.
COUNTS = (
    *PLACES,
    "n",
    "n_followed",
    "rate",
    "chance",
    "attended",
    "effect",
    "effect_low",
    "effect_high",
)
HEADERS = {
    "n": "source before",
    "n_followed": "out follows",
    "rate": "rate",
    "chance": "rate without",
    "attended": "attention",
    "effect": "effect (nats)",
    "effect_low": "low",
    "effect_high": "high",
}


def trigrams(found: Trigrams, state: PageState) -> list[Any]:
    """The list, and what it implies."""
    listed = found.listed.table()
    if listed.empty:
        return [
            html.Div("No skip-trigram with these tokens has a positive score.", className="hint")
        ]
    units = {
        "attention": f"attention ({found.listed.attention_unit})",
        "output": f"output ({found.listed.output_unit})",
    }
    shown: list[Any] = [
        data_table(
            listed[list(SHOWN)],
            label=f"Skip-trigrams of {found.listed.label}",
            tokens=PLACES,
            headers=units,
        )
    ]
    if len(found.implied):
        shown += [html.H3(f"{len(found.implied)} more are implied"), _implied(found)]
    return shown


def _implied(found: Trigrams) -> Any:
    table = found.implied.table()
    return data_table(
        table[[*SHOWN[:4], "destination_from", "out_from"]],
        label=f"Skip-trigrams that those of {found.listed.label} imply",
        tokens=(*PLACES, "destination_from", "out_from"),
        headers={"destination_from": "because of", "out_from": "and of"},
    )


def not_counted(state: PageState) -> str:
    """What must be asked for before anything is counted."""
    if state["count"] == "on":
        return ""
    return "Reading the held-out text takes some seconds for each head: switch on “Count them in text”."


def counted(found: Occurrences, state: PageState) -> list[Any]:
    """Counts and effects."""
    table = found.table()
    if table.empty:
        return [html.Div("No skip-trigram to count.", className="hint")]
    n_met, n_whole = (int((table[column] > 0).sum()) for column in ("n", "n_followed"))
    said = f"In {found.n_tokens:,} tokens of held-out text {n_met} of {len(table)} have their source before "
    said += f"their destination, and {n_whole} are followed by their output."
    return [
        html.P(said, className="statement"),
        data_table(
            table[list(COUNTS)],
            label=f"Skip-trigrams of {found.label} in held-out text",
            tokens=PLACES,
            headers=HEADERS,
            formats=dict.fromkeys(COUNTS[5:], ".3f"),
        ),
    ]
