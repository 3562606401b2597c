"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import Cell, markdown, number, percent, spread, whole
from studies.modular_transformers.training import CONDITIONS

if TYPE_CHECKING:
    from studies.modular_transformers.study import Findings

SHOWN: dict[str, tuple[str, Cell]] = {
    "loss_reached": ("loss reached, nats", number(3)),
    "accuracy": ("accuracy on repeats", number(3)),
    "induction": ("best induction score", number(2)),
    "n_induction": ("induction heads (score > 0.4)", number(1)),
    "previous_token": ("best previous-token score", number(2)),
    "n_previous": ("previous-token heads (score > 0.4)", number(1)),
    "in_use": ("heads in use, of 8", number(1)),
    "copying": ("copying of the best induction head", number(2)),
    "k_z": ("its strongest pair through K, z", number(1)),
    "k_matching": ("matching of that pair", number(2)),
    "k_above": ("pairs through K with z > 10, of 16", number(1)),
    "k_cut": ("of its induction score, lost by the worst cut", percent()),
    "length": ("mean wire length", number(3)),
    "length_placed": ("the same, units placed afterwards", number(3)),
    "channels": ("channels of a head, of 64", number(1)),
    "qk_top": ("top share of QK", percent()),
    "ov_top": ("top share of OV", percent()),
    "spread": ("spread of the weights", number(2)),
    "live": ("weights above 0.01", percent()),
    "q": ("Newman's Q", number(3)),
    "q_chance": ("the same, weights shuffled", number(3)),
}


_WEIGHTS = ("length", "length_placed", "channels", "qk_top", "ov_top", "live", "q", "q_chance")


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "equal": equal(findings.equal),
        "strengths": strengths(findings.models),
        "heads": heads(findings.heads),
        "text": text(findings.models),
    }


def equal(table: pd.DataFrame) -> str:
    """Measures by condition at equal loss: mean, and least and most over the seeds."""
    rows = []
    for loss, of_loss in table.groupby("loss", sort=False):
        for measure, (label, cell) in SHOWN.items():
            chosen = of_loss[of_loss["measure"] == measure].set_index("condition")
            chosen = chosen.rename(columns={"mean": "value"})
            written = dict(zip(chosen.index, spread(chosen, cell), strict=True))
            rows.append({"loss": loss, "measure": label} | written)
        counts = of_loss.groupby("condition")["n"].max().map(str)
        rows.append({"loss": loss, "measure": "seeds"} | counts.to_dict())
    named = {name: (name, _or_nothing) for name in CONDITIONS}
    cells: dict[str, tuple[str, Cell]] = {"loss": ("loss", number(3)), "measure": ("", str)}
    return markdown(pd.DataFrame(rows).reindex(columns=[*cells, *named]), cells | named)


def _or_nothing(value: object) -> str:
    return value if isinstance(value, str) else ""


def strengths(models: pd.DataFrame) -> str:
    """The trained models on repeats by strength: means over their seeds."""
    final = models[models["is_final"] & (models["data"] == "repeats")]
    order = [name for name in CONDITIONS if name in set(final["condition"])]
    rows = []
    for condition in order:
        for strength, group in final[final["condition"] == condition].groupby("strength"):
            means = group.mean(numeric_only=True).to_dict()
            ends = {"loss_low": group["loss"].min(), "loss_high": group["loss"].max()}
            row = {"condition": condition, "strength": strength, "n": len(group)}
            rows.append(means | ends | row)
    table = pd.DataFrame(rows)
    cells: dict[str, tuple[str, Cell]] = {
        "condition": ("condition", str),
        "strength": ("λ", lambda value: f"{value:g}"),
        "n": ("seeds", whole),
        "loss": ("loss, nats", str),
    }
    few = ("length", "length_placed", "channels", "spread", "live", "in_use", "q", "q_chance")
    table = table.assign(loss=spread(table, number(3), "loss"))
    return markdown(table, cells | {name: SHOWN[name] for name in few})


def heads(table: pd.DataFrame) -> str:
    """Heads of two models of one seed at nearly the same loss."""
    middle = table[(table["data"] == "repeats") & (table["seed"] == 0)]
    none = middle["condition"] == "none"
    swaps = (middle["condition"] == "swaps") & (middle["strength"] == 0.5)
    shown = middle[none | swaps]
    names = shown["layer"].astype(str) + "." + shown["head"].astype(str)
    cells = {
        "condition": ("condition", str),
        "name": ("head", str),
        "previous_token": ("previous-token", number(2)),
        "induction": ("induction", number(2)),
        "copying": ("copying", number(2)),
        "cost": ("costs, taken out", lambda value: f"{number(1)(100 * value)} %"),
        "channels": ("channels", number(1)),
        "channels_chance": ("at random", number(1)),
        "qk_top": ("top share of QK", percent()),
        "ov_top": ("top share of OV", percent()),
        "ov_top_chance": ("at random", percent()),
    }
    return markdown(shown.assign(name=names), cells)


def text(models: pd.DataFrame) -> str:
    """The models on text, and of the one without a penalty what has the nearest loss, if it is not the last."""
    rows = models[models["data"] == "text"]
    finals = rows[rows["is_final"]]
    penalised = finals[finals["condition"] != "none"]["loss"]
    free = rows[rows["condition"] == "none"]
    if len(penalised) and len(free):
        nearest = (free["loss"] - penalised.mean()).abs().idxmin()
        if nearest not in finals.index:
            finals = pd.concat([free.loc[[nearest]], finals])
    cells: dict[str, tuple[str, Cell]] = {
        "condition": ("condition", str),
        "strength": ("λ", lambda value: f"{value:g}"),
        "step": ("step", whole),
        "loss": ("loss, nats per token", number(3)),
        "repeats_loss": ("loss on repeats", number(2)),
    }
    few = ["induction", "previous_token", "k_z", "k_matching", "k_cut", "in_use"]
    cells |= {name: SHOWN[name] for name in [*few, *_WEIGHTS]}
    cells["channels"] = ("channels of a head, of 128", number(1))
    return markdown(finals, cells)
