"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import code, markdown, number, percent, spread, visible, whole

if TYPE_CHECKING:
    from studies.zero_and_one_layer.study import Findings

SHOWN_BUGS = 10


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "losses": losses(findings.losses),
        "agreement": agreement(findings.agreement),
        "by-count": by_count(findings.by_count),
        "copying": copying(findings.copying),
        "trigrams": trigrams(findings.trigram_shares),
        "bug-shares": bug_shares(findings.bug_shares),
        "bugs": bugs(findings.bugs),
    }


def losses(table: pd.DataFrame) -> str:
    """Each table of probabilities on held-out text."""
    table = table.assign(
        shown=spread(table, number(3), "loss"),
        over=spread(table, number(3, sign=True), "over_model"),
    )
    cells = {
        "name": ("next token from", str),
        "shown": ("loss, nats per token", _plain),
        "over": ("minus `attn-0l`", _plain),
        "on_unseen": ("on pairs never seen in training", percent(1)),
    }
    table.loc[table["loss"].isna(), ["shown", "over"]] = ""
    table.loc[table["name"] == "attn-0l", "over"] = ""
    return markdown(table, cells)


def agreement(table: pd.DataFrame) -> str:
    """How each table agrees with counts."""
    shown = {
        name: spread(table, number(3), name)
        for name in ("correlation", "beyond_unigram", "divergence")
    }
    cells = {
        "name": ("", str),
        "correlation": ("correlation with log counts", _plain),
        "beyond_unigram": ("beyond unigrams", _plain),
        "divergence": ("KL from bigram counts, nats per token", _plain),
    }
    return markdown(table.assign(**shown), cells)


def by_count(table: pd.DataFrame) -> str:
    """How the error falls with the count."""
    cells = {
        "count": ("the pair occurs", str),
        "n_bigrams": ("pairs", whole),
        "share": ("of the text", percent(1)),
        "mean": ("mean error, nats", number(2, sign=True)),
        "rms": ("root mean square", number(2)),
    }
    return markdown(table, cells)


def copying(table: pd.DataFrame) -> str:
    """Heads by their copying score, with what their removal costs."""
    table = table.sort_values("score", ascending=False)
    shown = {
        name: spread(table, number(3, sign=True), name) for name in ("cost_repeated", "cost_new")
    }
    heads = table["layer"].astype(str) + "." + table["head"].astype(str)
    cells = {
        "label": ("head", str),
        "score": ("copying score", number(2)),
        "z": ("z", number(1)),
        "diagonal_top": ("tokens in own top 5", percent(0)),
        "cost_repeated": ("cost of removal, repeated tokens", _plain),
        "cost_new": ("new tokens", _plain),
    }
    return markdown(table.assign(**shown, label=heads), cells)


def trigrams(table: pd.DataFrame) -> str:
    """What becomes of skip-trigrams ranked by weights."""
    cells = {
        "head": ("head", str),
        "n": ("listed", whole),
        "never_together": ("source never before destination", percent()),
        "never_followed": ("never whole", percent()),
        "confirmed": ("true, of those met 10 times", percent()),
        "unattended": ("attention below 1 %", percent()),
        "raised": ("out raised", percent()),
        "effect": ("median effect, nats", number(2, sign=True)),
        "helps": ("lowers the loss there", percent()),
    }
    return markdown(table, cells)


def bug_shares(table: pd.DataFrame) -> str:
    """Bugs beside the confirmed skip-trigrams that imply them."""
    cells = {
        "kind": ("", {"bug": "bugs", "confirmed": "confirmed, behind them"}.get),
        "n": ("skip-trigrams", whole),
        "n_places": ("places in the text", whole),
        "never_followed": ("out never follows", percent()),
        "not_above_chance": ("no oftener than chance", percent()),
        "raised": ("out raised", percent()),
        "effect": ("median effect, nats", number(2, sign=True)),
        "helps": ("source lowers the loss there", percent()),
    }
    return markdown(table, cells)


def bugs(table: pd.DataFrame) -> str:
    """The bugs that weights rank highest of those that the text never bears out."""
    false = (table["kind"] == "bug") & (table["n_followed"] == 0)
    table = table[false].sort_values("score", ascending=False).head(SHOWN_BUGS)
    places = [table[name].map(visible) for name in ("source", "destination", "out")]
    behind = {name: table[name].map(_apart) for name in ("destination_from", "out_from")}
    written = places[0] + " … " + places[1] + " → " + places[2]
    cells = {
        "head": ("head", str),
        "written": ("bug", code),
        "n": ("met, never true", whole),
        "effect": ("effect, nats", number(2, sign=True)),
        "destination_from": ("from", code),
        "out_from": ("and", code),
    }
    return markdown(table.assign(written=written, **behind), cells)


def _apart(written: str) -> str:
    return " … ".join(visible(token) for token in written.split(" … "))


def _plain(value: object) -> str:
    return str(value)
