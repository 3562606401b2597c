"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import markdown, number, spread, whole

if TYPE_CHECKING:
    from studies.residual_ensembles.study import Findings

N_NOTED = 12


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "models": models(findings.models),
        "small": single(findings.single[findings.single["model"] != "smollm2"]),
        "deep": deep(findings.single),
        "draws": draws(findings.draws),
        "path-lengths": path_lengths(findings.models),
        "lengths": lengths(findings.lengths),
    }


def models(table: pd.DataFrame) -> str:
    """How much single deletions cost, and how well they are foretold."""
    cells = {
        "model": ("model", str),
        "n_sublayers": ("sublayers", whole),
        "intact": ("loss", number(2)),
        "gained": ("below guessing", number(2)),
        "median_cost": ("median cost of one", number(3)),
        "cheap": ("cost under 5 % of that", whole),
        "worst": ("most costly", str),
        "worst_cost": ("costs", number(2)),
        "rank_correlation": ("rank correlation, true and frozen", number(2)),
        "error": ("median difference", number(3)),
    }
    return markdown(table, cells)


def single(table: pd.DataFrame) -> str:
    """Every sublayer of the small models."""
    cell = number(3, sign=True)
    shown = {
        name: spread(table, cell, name).where(table[name].notna(), "")
        for name in ("true", "norms_held", "frozen")
    }
    cells = {
        "model": ("model", str),
        "lesion": ("without", str),
        "true": ("true", str),
        "norms_held": ("norms held", str),
        "frozen": ("frozen", str),
    }
    return markdown(table.assign(**shown), cells)


def deep(table: pd.DataFrame) -> str:
    """The sublayers of SmolLM2 that cost most."""
    table = table[table["model"] == "smollm2"]
    table = table.sort_values("true", ascending=False).head(N_NOTED)
    cell = number(2, sign=True)
    shown = {name: spread(table, cell, name) for name in ("true", "frozen")}
    cells = {
        "lesion": ("without", str),
        "true": ("true", str),
        "frozen": ("frozen", str),
    }
    return markdown(table.assign(**shown), cells)


def draws(table: pd.DataFrame) -> str:
    """Several at once."""
    shown = {name: spread(table, number(2), name) for name in ("true", "frozen")}
    cells = {
        "model": ("model", str),
        "kind": ("", str),
        "count": ("how many", whole),
        "kendall": ("Kendall τ", number(2)),
        "true": ("loss, true", str),
        "frozen": ("loss, frozen", str),
    }
    return markdown(table.assign(**shown), cells)


def path_lengths(table: pd.DataFrame) -> str:
    """Mean lengths by number, by gradient, and how much cancels."""
    cells = {
        "model": ("model", str),
        "length_counted": ("mean length of paths", number(1)),
        "length_effective": ("weighted by count × mean gradient", number(1)),
        "length_whole": ("by the gradient of all of a length", number(1)),
        "cancellation": ("sizes of these over that of their sum", number(1)),
    }
    return markdown(table, cells)


def lengths(table: pd.DataFrame) -> str:
    """Some lengths of each model."""
    deep_ones = table["model"] == "smollm2"
    table = table[~deep_ones | table["length"].isin([0, 1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 30, 40])]
    cells = {
        "model": ("model", str),
        "length": ("length", whole),
        "n_paths": ("paths", _power),
        "counted": ("share of paths", _power),
        "mean": ("mean gradient of one", _power),
        "error": ("± ", _power),
        "effective": ("share of count × mean", _power),
        "whole": ("gradient of all together", number(3)),
        "coherence": ("over count × mean", _power),
    }
    return markdown(table, cells)


def _power(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.3g}"
    return f"{value:.1e}".replace("-", "−")
