"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import Cell, markdown, number, percent, whole

if TYPE_CHECKING:
    from studies.brain_inspired_modular_training.study import Findings

MAX_DIGITS = 3
SCORED = ("bimt-two-moons", "bimt-modular-addition", "bimt-s4", "bimt-digits", "bimt-mnist")
MEASURES = {
    "test_loss": "test loss",
    "mean_length": "mean wire length",
    "q": "Q",
    "cross_talk": "cross-talk",
    "inputs_used": "input neurons in use",
}
CHANGES = {
    "test_loss": "test loss, ratio",
    "mean_length": "mean wire length, ratio",
    "q": "Q",
    "q_pruned": "Q, pruned",
    "live_wires": "live wires",
}


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "variants": variants(findings.variants),
        "modules": modules(findings.variants),
        "independence": independence(findings.runs),
        "contrasts": contrasts(findings.contrasts),
        "knockout": knockout(findings.variants),
        "slope": slope(findings.variants),
        "notebooks": reported(findings.published.query("source == 'notebooks'")),
        "earlier": reported(findings.published.query("source == 'earlier'")),
    }


def small(value: float) -> str:
    """Two significant digits; powers of ten where there would be many zeros."""
    if pd.isna(value):
        return ""
    if value != 0 and abs(value) < 10**-MAX_DIGITS:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    return f"{float(f'{value:.2g}'):g}".replace("-", "−")


def ranged(table: pd.DataFrame, cells: dict[str, Cell], of: str = "") -> dict[str, list[str]]:
    """Columns of `mean [low, high]`."""
    shown = {}
    for name, cell in cells.items():
        ends = (name, f"{name}_low", f"{name}_high") if not of else (of, "low", "high")
        rows = zip(*(table[end] for end in ends), strict=True)
        shown[name] = [
            cell(x) if pd.isna(low) else f"{cell(x)} [{cell(low)}, {cell(high)}]"
            for x, low, high in rows
        ]
    return shown


def variants(table: pd.DataFrame) -> str:
    """Loss, score and wiring of every variant."""
    is_share = table["experiment"].isin(SCORED)
    score = [
        f"{100 * x:.1f} %" if share else f"R² {x:.4f}"
        for x, share in zip(table["score"], is_share, strict=True)
    ]
    cells = {"test_loss": small, "wiring": small, "mean_length": number(3), "cross_talk": small}
    shown = {"experiment": _names(table), "score": score} | ranged(table, cells)
    headings = {
        "experiment": ("experiment", str),
        "variant": ("variant", str),
        "n": ("seeds", whole),
        "test_loss": ("test loss", str),
        "score": ("test score", str),
        "wiring": ("wiring length", str),
        "mean_length": ("mean wire length", str),
        "cross_talk": ("cross-talk", str),
    }
    return markdown(table.assign(**shown), headings)


def modules(table: pd.DataFrame) -> str:
    """Modularity of the whole network against shuffles, of the pruned one against rewirings."""
    cells = {
        "q": number(2),
        "q_z": number(1),
        "q_pruned": number(2),
        "q_pruned_mean": number(2),
        "q_pruned_z": number(1),
        "cut_pruned_z": number(1),
        "components": number(1),
        "live_wires": number(0),
    }
    headings = {
        "experiment": ("experiment", str),
        "variant": ("variant", str),
        "q": ("Q, whole", str),
        "q_z": ("z against shuffles", str),
        "live_wires": ("live wires, pruned", str),
        "q_pruned": ("Q, pruned", str),
        "q_pruned_mean": ("of rewirings", str),
        "q_pruned_z": ("z", str),
        "cut_pruned_z": ("n-cut, z", str),
        "components": ("components", str),
    }
    return markdown(table.assign(experiment=_names(table), **ranged(table, cells)), headings)


def independence(runs: pd.DataFrame) -> str:
    """How many seeds come apart."""
    rows = []
    for variant, group in runs[runs["experiment"] == "bimt-independence"].groupby(
        "variant", sort=False
    ):
        rows.append(
            {
                "variant": variant,
                "n": len(group),
                "two": int((group["components"] == 2).sum()),
                "rewired": group["components_mean"].mean(),
                "talk": group["cross_talk"].mean(),
                "pruned": group["cross_talk_pruned"].mean(),
            }
        )
    headings = {
        "variant": ("variant", str),
        "n": ("seeds", whole),
        "two": ("of them in two components", whole),
        "rewired": ("components of rewirings", number(2)),
        "talk": ("cross-talk, whole", small),
        "pruned": ("cross-talk, pruned", small),
    }
    return markdown(pd.DataFrame(rows), headings)


def knockout(table: pd.DataFrame) -> str:
    """The score with the inputs in use alone."""
    table = table[table["score_inputs"].notna()]
    used = ranged(table, {"inputs_used": number(1)})
    cells: dict[str, tuple[str, Cell]] = {
        "experiment": ("experiment", str),
        "variant": ("variant", str),
        "n": ("seeds", whole),
        "inputs_used": ("inputs in use, of 32", str),
        "score": ("test accuracy", percent(1)),
        "score_inputs": ("with these alone", percent(1)),
        "score_inputs_random": ("with as many at random", percent(1)),
    }
    return markdown(table.assign(experiment=_names(table), **used), cells)


def slope(table: pd.DataFrame) -> str:
    """Whether one unit holds w."""
    table = table[table["w_r2"].notna()]
    cells: dict[str, tuple[str, Cell]] = {
        "variant": ("variant", str),
        "n": ("seeds", whole),
        "w_r2": ("best R² of w with one unit", str),
        "w_r2_of_y": ("with y₁ itself", number(3)),
    }
    return markdown(table.assign(**ranged(table, {"w_r2": number(3)})), cells)


def contrasts(table: pd.DataFrame) -> str:
    """One variant against another, a row for each pair and experiment."""
    rows = []
    table = table[table["measure"].isin(CHANGES)]
    for (experiment, one, other), group in table.groupby(
        ["experiment", "variant", "against"], sort=False
    ):
        row = {"experiment": experiment, "pair": f"{one} / {other}"}
        for found in group.to_dict("records"):
            is_count = found["measure"] == "live_wires"
            cell = number(0, sign=True) if is_count else number(2, sign=found["kind"] != "ratio")
            one_row = pd.DataFrame([found])
            row[found["measure"]] = ranged(one_row, {"x": cell}, of="value")["x"][0]
        rows.append(row)
    shown = pd.DataFrame(rows)
    headings: dict[str, tuple[str, Cell]] = {"experiment": ("experiment", str), "pair": ("", str)}
    headings |= {name: (label, str) for name, label in CHANGES.items()}
    return markdown(shown.assign(experiment=_names(shown)), headings)


def reported(table: pd.DataFrame) -> str:
    """Reported numbers beside the prediction interval of one more run of ours."""
    shown = ranged(table, {"ours": small}, of="mean")
    headings = {
        "experiment": ("experiment", str),
        "variant": ("variant", str),
        "measure": ("", str),
        "reported": ("reported", small),
        "ours": ("ours, where one more seed is expected", str),
        "agrees": ("agrees", str),
    }
    named = table.assign(experiment=_names(table), measure=table["measure"].map(MEASURES), **shown)
    return markdown(named, headings)


def named(experiment: str) -> str:
    """An experiment's name in text."""
    return {"bimt-s4": "S4"}.get(experiment, experiment.removeprefix("bimt-").replace("-", " "))


def _names(table: pd.DataFrame) -> pd.Series:
    return table["experiment"].map(named)
