"""What a run measures on its way: one line for each validation, and the same as a table.

<run>/metrics.jsonl      appended to; a line that a kill cut short is dropped when the run goes on
      metrics.parquet    the whole table, replaced at most every few seconds and at the end
"""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from workbench.writing import write_atomically

METRICS_FILE, TABLE_FILE = "metrics.jsonl", "metrics.parquet"
TABLE_SECONDS = 3.0
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a validation."""

    step: int
    steps: int
    tokens: int
    seconds: float
    train_loss: float
    measured: dict[str, float]

    def __str__(self) -> str:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in self.measured.items())
        return f"step {self.step}/{self.steps}  {self.seconds:.0f} s  train {self.train_loss:.4f}  {numbers}"

    @property
    def line(self) -> dict[str, int | float]:
        """Its line in the journal."""
        counted = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 3)}
        return {**counted, "train_loss": self.train_loss, **self.measured}


ProgressFn = Callable[[Progress], bool | None]
"""Called after every validation; returning False stops the run, which can be resumed."""


@runtime_checkable
class Overseer(Protocol):
    """Asked after every step, and told of every validation."""

    def goes_on(self, step: int, seconds: float) -> bool:
        """Whether the run goes on after so many steps; if not, its state is saved."""
        ...

    def saw(self, progress: Progress) -> bool:
        """Told of a validation; returns whether the run goes on."""
        ...


@dataclass(frozen=True)
class Told:
    """An overseer that is told of validations and asked nothing else."""

    progress: ProgressFn | None

    def goes_on(self, step: int, seconds: float) -> bool:
        """Always."""
        return True

    def saw(self, progress: Progress) -> bool:
        """Whether the function does not say False."""
        return self.progress is None or self.progress(progress) is not False


def as_overseer(given: ProgressFn | Overseer | None) -> Overseer:
    """A function, or nothing, as an overseer."""
    return given if isinstance(given, Overseer) else Told(given)


@dataclass
class Journal:
    """Writes both files."""

    out: Path
    written: float = field(default=float("-inf"), init=False)

    def cut(self, step: int) -> None:
        """Drop the lines of steps that will be taken again."""
        kept = [json.dumps(line) + "\n" for line in read_metrics(self.out) if line["step"] <= step]
        write_atomically(self.out / METRICS_FILE, "".join(kept))

    def add(self, progress: Progress) -> None:
        """A line; and the table, if the last one is some seconds old."""
        with (self.out / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(progress.line) + "\n")
        if time.monotonic() - self.written > TABLE_SECONDS:
            self.write_table()

    def write_table(self) -> None:
        """Replace the table."""
        import pandas as pd

        from workbench.results import provenance, save_table

        table = pd.DataFrame(read_metrics(self.out))
        save_table(table, self.out / TABLE_FILE, provenance(run=self.out.name))
        self.written = time.monotonic()


def read_metrics(out: Path) -> list[dict[str, int | float]]:
    """The validations of a run so far; what is no line of a journal, such as one cut short, is left out."""
    path = out / METRICS_FILE
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return []
    read: list[dict[str, int | float]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(line)
            if _is_line(found):
                read.append(found)
    return read


def _is_line(found: Any) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("step"), int):
        return False
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in found.values())
