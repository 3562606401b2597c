"""What every probe is: one question, asked of any model, answered by one tidy table and its figures.

A probe is a file `probes/<name>.py` that ends in `PROBE = ThatProbe()`; its figures are in
`probes/pictures/<name>.py`, as `figures(tables)`, which need neither torch nor the model. A probe holds no
state: the same model, data and config give the same table, on every run.

Every table has the same columns, one row for each number that was measured:

    measure                       what was measured
    layer head site item          of what; nothing where it does not apply
    value unit                    the number
    null_mean null_std p          the same number where there is nothing to find, and p against it, two-sided;
                                  a chance level alone, without p, where no null is exact
    low high                      a 95 % interval
    n seed                        observations behind it; the seed of whatever was drawn
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from probes.data import DataFacts, ProbeData
    from probes.facts import ModelFacts

COLUMNS = (
    "measure", "layer", "head", "site", "item", "value",
    "null_mean", "null_std", "low", "high", "p", "n", "seed", "unit",
)  # fmt: skip
TEXTS = ("measure", "site", "item", "unit")
COUNTS = ("layer", "head", "n", "seed")
NUMBERS = ("value", "null_mean", "null_std", "low", "high", "p")
_REQUIRED = ("measure", "value")

# Told how far a probe is, from 0 to 1, and in words what it does.
Progress = Callable[[float, str], None]


def silent(share: float, doing: str) -> None:
    """The progress of which nobody is told."""


class Cost(NamedTuple):
    """What a probe is expected to take on two cores; `nbytes` at its peak, the loaded model left out."""

    seconds: float
    nbytes: float


class Probe(ABC):
    """A question asked of a model.

    Attributes:
        name: in the words of a command: "head-behaviours".
        version: to be raised when the numbers change: stored ones are then computed anew.
        question: one sentence.
        method: the formulas, as code, and their source, in markdown.
        limits: what the numbers do not say, in markdown.
        needs: sites that are read, data, and architectures, in one line.
        kind: "weights" where no data is read: its results then hold for any data.
        draws: the field of Config that says among how many draws of the null every p ranks; "" where p is no
            such rank, or where there is none.
        sides: how many of such ranks p counts at least: no p is below sides / (1 + draws).
        Config: a frozen dataclass with a default for every field, `seed` among them; plain values only.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[int]
    question: ClassVar[str]
    method: ClassVar[str]
    limits: ClassVar[str]
    needs: ClassVar[str]
    kind: ClassVar[Literal["weights", "data"]]
    Config: ClassVar[type[Any]]
    draws: ClassVar[str] = ""
    sides: ClassVar[int] = 1

    @abstractmethod
    def refuses(self, facts: "ModelFacts") -> str:
        """Why it cannot be asked of this model, naming what the model has; "" where it can."""

    @abstractmethod
    def cost(self, facts: "ModelFacts", data: "DataFacts", config: Any) -> Cost:
        """What a run will take, within a factor of three."""

    @abstractmethod
    def run(
        self, model: Any, data: "ProbeData", config: Any, progress: Progress = silent
    ) -> pd.DataFrame:
        """The findings, as `findings_table` makes them."""

    def figures(self, tables: Mapping[str, pd.DataFrame]) -> list[Any]:
        """plotly figures, drawn from the stored tables alone, one table for each model by its label."""
        found: list[Any] = import_module(f"probes.pictures.{self.name.replace('-', '_')}").figures(
            tables
        )
        return found


def findings_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of (some of) COLUMNS as a table of all of them; every row has at least a measure and a value.

    Raises:
        WorkbenchError: a column that no table has, or a row without measure or value.
    """
    listed = list(rows)
    if unknown := sorted({name for row in listed for name in row} - set(COLUMNS)):
        raise WorkbenchError(
            f"no column {unknown[0]!r} in a table of findings: there are {', '.join(COLUMNS)}"
        )
    for row in listed:
        if missing := [name for name in _REQUIRED if name not in row]:
            raise WorkbenchError(f"a finding without {missing[0]}: {dict(row)!r:.200}")
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in TEXTS:
            columns[name] = pd.array([str(row.get(name, "")) for row in listed], dtype="str")
        elif name in COUNTS:
            columns[name] = pd.array([row.get(name) for row in listed], dtype="Int64")
        else:
            columns[name] = np.array([row.get(name, np.nan) for row in listed], dtype=np.float64)
    return pd.DataFrame(columns)


def check_table(table: pd.DataFrame, where: str) -> None:
    """Refuse a table that is not as COLUMNS says, or that holds no number at all.

    Raises:
        WorkbenchError: says which column is wrong.
    """
    if not isinstance(table, pd.DataFrame) or tuple(table.columns) != COLUMNS:
        found = (
            ", ".join(map(str, table.columns)) if isinstance(table, pd.DataFrame) else "no table"
        )
        raise WorkbenchError(f"{where} gave {found}; the columns are {', '.join(COLUMNS)}")
    for name in COLUMNS:
        dtype = table[name].dtype
        wanted = "str" if name in TEXTS else "Int64" if name in COUNTS else "float64"
        if str(dtype) != wanted:
            raise WorkbenchError(f"{where}: column {name} is {dtype}; it must be {wanted}")
    if table.empty:
        raise WorkbenchError(f"{where} found nothing at all: a table has at least one row")
    if (table["measure"] == "").any():
        raise WorkbenchError(f"{where}: every row names its measure")
    endless = [name for name in NUMBERS if np.isinf(table[name]).any()]
    if endless:
        raise WorkbenchError(f"{where}: {endless[0]} holds infinite numbers")
    outside = (table["p"] < 0) | (table["p"] > 1)
    if outside.any():
        raise WorkbenchError(f"{where}: p runs from 0 to 1, not {table['p'][outside].iloc[0]:g}")
