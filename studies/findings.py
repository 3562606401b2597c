"""What all studies share: tidy tables on disk with their provenance, and the same numbers in the README.

results/<table>.json or .parquet                   one file per table of the study's `Findings`
README.md: <!-- numbers: NAME --> … <!-- end -->    rewritten from those tables, never by hand
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError
from workbench.results import read_table, save_table
from workbench.writing import write_atomically

Tables = TypeVar("Tables")
Cell = Callable[[Any], str]
MOST_READ = 100
_DIGITS = 6
_BLOCK = re.compile(r"(<!-- numbers: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def save_findings(findings: Any, folder: Path, made_by: dict[str, Any]) -> None:
    """Write every table of a dataclass of tables, to six significant digits; long ones as Parquet."""
    for field in fields(findings):
        table = getattr(findings, field.name)
        ending = "json" if len(table) <= MOST_READ else "parquet"
        save_table(_rounded(table), folder / f"{field.name}.{ending}", made_by)


def read_findings(kind: type[Tables], folder: Path) -> Tables:
    """The findings that `save_findings` wrote.

    Raises:
        WorkbenchError: a table is missing or broken.
    """
    found = {}
    for field in fields(kind):  # type: ignore[arg-type]  # any dataclass
        path = folder / f"{field.name}.json"
        found[field.name] = read_table(path if path.is_file() else path.with_suffix(".parquet"))[0]
    return kind(**found)


def write_numbers(readme: Path, blocks: Mapping[str, str]) -> None:
    """Replace the text of every marked block of a README.

    Raises:
        WorkbenchError: blocks that the README does not have, or has and are not given.
    """
    text = readme.read_text(encoding="utf-8")
    marked = [match[2] for match in _BLOCK.finditer(text)]
    if sorted(marked) != sorted(blocks):
        raise WorkbenchError(f"{readme} has the blocks {marked} and is given {list(blocks)}")
    filled = _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[4]}", text)
    write_atomically(readme, filled)


def read_numbers(readme: Path) -> dict[str, str]:
    """The text of every marked block of a README."""
    text = readme.read_text(encoding="utf-8")
    return {match[2]: match[3].strip() for match in _BLOCK.finditer(text)}


def markdown(rows: pd.DataFrame, cells: Mapping[str, tuple[str, Cell]]) -> str:
    """A Markdown table.

    Args:
        cells: by column of `rows`, in order: its heading, and how a value is written.
    """
    headings = [heading for heading, _ in cells.values()]
    lines = [headings, ["---"] * len(headings)]
    for row in rows.to_dict("records"):
        lines.append([spell(row[column]) for column, (_, spell) in cells.items()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(digits: int, *, sign: bool = False) -> Cell:
    """Writes a number with so many decimals, no minus before zero; nothing for a missing one."""
    shape = f"{'+' if sign else ''}.{digits}f"

    def write(value: Any) -> str:
        # Adding 0.0 turns -0.0 into 0.0.
        return "" if pd.isna(value) else f"{round(value, digits) + 0.0:{shape}}".replace("-", "−")

    return write


def percent(digits: int = 0) -> Cell:
    """Writes a share in percent."""
    return lambda value: "" if pd.isna(value) else f"{100 * value:.{digits}f} %"


def whole(value: Any) -> str:
    """A count, its thousands set apart."""
    return "" if pd.isna(value) else f"{int(value):,}"


def visible(token: str) -> str:
    """A token with its spaces and line ends drawn."""
    return token.replace(" ", "·").replace("\n", "↵")


def code(value: Any) -> str:
    """Text to be read letter by letter."""
    shown = str(value).replace("|", "\\|").replace("`", "ˋ")
    return f"`{shown}`"


def spread(rows: pd.DataFrame, cell: Cell, of: str = "") -> pd.Series:
    """`value [low, high]` in one column; `of` is the start of the three columns' names."""
    value, low, high = (of or "value", f"{of}_low" if of else "low", f"{of}_high" if of else "high")
    written = [
        cell(row[value]) + ("" if pd.isna(row[low]) else f" [{cell(row[low])}, {cell(row[high])}]")
        for row in rows.to_dict("records")
    ]
    return pd.Series(written, index=rows.index, dtype=object)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    # The last bits differ between processors: written out, every run would change every line.
    def short(value: Any) -> Any:
        finite = isinstance(value, float | np.floating) and np.isfinite(value)
        return float(f"{value:.{_DIGITS}g}") if finite else value

    return table.map(short)
