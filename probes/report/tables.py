"""Tables of a report: cells as text that is safe to show, each number beside its chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.report.discovery import at_most, ranked

LONGEST = 80


@dataclass(frozen=True)
class Column:
    """A column's name, and whether it holds numbers."""

    name: str
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as they are read.

    Args:
        note: what it shows, and of how many.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def shown(text: object, longest: int = LONGEST) -> str:
    """A text from outside: one line of bounded length; what cannot be seen is spelled out, as Python does."""
    plain = str(text)
    cut = plain[: longest - 1] + "…" if len(plain) > longest else plain
    # Neither line breaks nor marks that turn the direction of writing, nor halves of characters.
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode()
        for one in cut
    )


def number(value: Any, digits: int = 4) -> str:
    """A number as it is read; nothing for none."""
    if value is None or pd.isna(value):
        return ""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:.{digits}g}"


def place(layer: Any, head: Any) -> str:
    """Head 1.4, or layer 1."""
    if pd.isna(layer):
        return ""
    return f"layer {layer}" if pd.isna(head) else f"{layer}.{head}"


def beside(value: Any, spread: Any) -> str:
    """Chance, as mean ± standard deviation."""
    if pd.isna(value):
        return ""
    return number(value, 3) if pd.isna(spread) else f"{number(value, 3)} ± {number(spread, 2)}"


def interval(low: Any, high: Any) -> str:
    """From low to high."""
    return "" if pd.isna(low) or pd.isna(high) else f"{number(low, 3)} to {number(high, 3)}"


def chance(p: Any) -> str:
    """A p or q; below what a float can hold it is not zero."""
    return "<1e-300" if p < 1e-300 else number(p, 2)


FINDING = (
    Column("model"), Column("probe"), Column("measure"), Column("of"), Column("part"), Column("item"),
    Column("value", True), Column("chance", True), Column("effect", True), Column("prominence", True),
    Column("q", True), Column("p", True), Column("95 % interval", True), Column("n", True), Column("unit"),
)  # fmt: skip


def findings_rows(
    findings: pd.DataFrame, note: str = "", without: Sequence[str] = ("probe", "prominence")
) -> Table:
    """Findings as rows, in the order that they have."""
    kept = [index for index, column in enumerate(FINDING) if column.name not in without]
    rows = [_cells(row) for row in findings.itertuples(index=False)]
    # A column in which nothing stands says nothing.
    kept = [index for index in kept if any(row[index] for row in rows)] or kept
    return Table(
        tuple(FINDING[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in rows),
        note,
    )


def _cells(row: Any) -> tuple[str, ...]:
    return (
        shown(row.model),
        shown(row.probe),
        shown(row.measure),
        place(row.layer, row.head),
        shown(row.site),
        shown(row.item),
        number(row.value),
        beside(row.null_mean, row.null_std),
        number(row.effect, 3),
        number(row.prominence, 3),
        chance(row.q),
        chance(row.p),
        interval(row.low, row.high),
        number(row.n),
        shown(row.unit, 40),
    )


def main_rows(findings: pd.DataFrame, most: int) -> Table:
    """The main rows of a probe: of each measure of each model those of least q, then of largest effect."""
    n_groups = max(1, len(findings[["model", "measure"]].drop_duplicates()))
    each = max(1, most // n_groups)
    chosen = at_most(ranked(findings), each, ("model", "measure")).head(most)
    if len(chosen) == len(findings):
        note = f"All {len(findings):,} rows, by q, then by effect."
    else:
        note = (
            f"{len(chosen):,} of {len(findings):,} rows: at most {each} of each measure of each model, "
            "those of least q, then of largest effect. findings.parquet has all of them."
        )
    return findings_rows(chosen, note)
