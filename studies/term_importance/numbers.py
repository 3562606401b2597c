"""The tables of README.md, written from the findings; the paper's numbers stand beside ours.

Theirs are from the text and the authors' video of Elhage et al. 2021 ("Term Importance Analysis"): two layers
of 12 heads, attention only, a vocabulary of about 50,000.
"""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import markdown, number, spread, whole

if TYPE_CHECKING:
    from studies.term_importance.study import Findings

PAPER_ORDERS = {0: (1, -1.8), 1: (24, -5.2), 2: (144, -0.3)}
PAPER_LAYERS = {"attn 0": (-1.3, -0.05), "attn 1": (-5.2, -4.0)}
SHOWN = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 60)


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "models": models(findings.models),
        "paper": paper(findings.orders),
        "layers": layers(findings.parts),
        "heads": heads(findings.parts),
        "with-mlps": with_mlps(findings),
        "deep": deep(findings.orders),
    }


def models(table: pd.DataFrame) -> str:
    """What was measured on what."""
    cells = {
        "model": ("model", str),
        "counted": ("counted", str),
        "n_prompts": ("texts", whole),
        "n_tokens": ("tokens", whole),
        "uniform": ("loss of guessing", number(3)),
        "model_loss": ("of the model", number(3)),
        "residual": ("last order minus model", lambda value: f"{value:.0e}".replace("-", "−")),
    }
    return markdown(table, cells)


def paper(orders: pd.DataFrame) -> str:
    """attn-2l beside the paper's model."""
    ours = orders[(orders["model"] == "attn-2l") & (orders["counted"] == "all")]
    total = ours["marginal"].sum()
    theirs_total = sum(marginal for _, marginal in PAPER_ORDERS.values())
    rows = ours.assign(
        shown=spread(ours, number(3, sign=True), "marginal"),
        share=ours["marginal"] / total * 100,
        theirs=[PAPER_ORDERS[order][1] for order in ours["order"]],
        their_paths=[PAPER_ORDERS[order][0] for order in ours["order"]],
    )
    rows = rows.assign(
        their_share=rows["theirs"] / theirs_total * 100,
        their_per_path=rows["theirs"] / rows["their_paths"],
    )
    cells = {
        "order": ("order", whole),
        "n_paths": ("terms", whole),
        "shown": ("nats", str),
        "share": ("% of all", number(1)),
        "per_path": ("per term", number(4, sign=True)),
        "their_paths": ("paper: terms", whole),
        "theirs": ("nats", number(1, sign=True)),
        "their_share": ("% of all", number(1)),
        "their_per_path": ("per term", number(4, sign=True)),
    }
    return markdown(rows, cells)


def layers(parts: pd.DataFrame) -> str:
    """Order 1 by layer, in attn-2l and in the paper."""
    rows = parts[(parts["model"] == "attn-2l") & (parts["kind"] == "attn")]
    rows = _spelled(rows).assign(
        their_alone=[PAPER_LAYERS[part][0] for part in rows["part"]],
        their_on_top=[PAPER_LAYERS[part][1] for part in rows["part"]],
    )
    cells = {
        "layer": ("heads of layer", whole),
        "alone_shown": ("on top of order 0", str),
        "on_top_shown": ("and of the other layer", str),
        "their_alone": ("paper: on top of order 0", number(1, sign=True)),
        "their_on_top": ("and of the other layer", number(2, sign=True)),
    }
    return markdown(rows, cells)


def heads(parts: pd.DataFrame) -> str:
    """Order 1 head by head."""
    rows = _spelled(parts[(parts["kind"] == "head") & (parts["model"] != "mlp-2l")])
    cells = {
        "model": ("model", str),
        "part": ("head", str),
        "alone_shown": ("on top of order 0", str),
        "on_top_shown": ("and of all other heads", str),
    }
    return markdown(rows, cells)


def with_mlps(findings: "Findings") -> str:
    """mlp-2l, heads and MLPs counted, or heads alone."""
    rows = findings.orders[findings.orders["model"] == "mlp-2l"]
    rows = rows.assign(
        loss_shown=spread(rows, number(3), "loss"),
        marginal_shown=spread(rows, number(3, sign=True), "marginal"),
    )
    cells = {
        "counted": ("counted", str),
        "order": ("up to order", whole),
        "n_paths": ("terms of it", whole),
        "loss_shown": ("loss", str),
        "marginal_shown": ("change", str),
    }
    return markdown(rows, cells)


def deep(orders: pd.DataFrame) -> str:
    """SmolLM2: some of its orders."""
    table = orders[orders["model"] == "smollm2"]
    written = table.assign(shown=spread(table, number(2), "loss"))
    by_counted = written.pivot(index="order", columns="counted", values="shown").fillna("")
    n_paths = table[table["counted"] == "all"].set_index("order")["n_paths"]
    rows = by_counted.loc[[order for order in SHOWN if order in by_counted.index]].reset_index()
    rows = rows.assign(n_paths=[f"{n_paths[order]:.1e}" for order in rows["order"]])
    cells = {
        "order": ("up to order", whole),
        "n_paths": ("terms of it", str),
        "all": ("loss, heads and MLPs counted", str),
        "heads": ("loss, heads counted", str),
    }
    return markdown(rows, cells)


def _spelled(rows: pd.DataFrame) -> pd.DataFrame:
    cell = number(3, sign=True)
    return rows.assign(
        alone_shown=spread(rows, cell, "alone"), on_top_shown=spread(rows, cell, "on_top")
    )
