"""What a report has found, asked by DuckDB: a block of sorted and filtered rows, or one measure of all heads.

The whole table stays on the server, in memory and read-only; each question takes what a screen shows.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float

from app.report_filters import COLUMNS, Asked
from workbench.errors import BudgetError, CheckpointError, WorkbenchError

MAX_BYTES = 1 << 30
MAX_HEADS, MAX_MODELS, MAX_PLACES, MAX_MEASURES = 5000, 60, 200, 100
LARGEST, MEAN = "largest", "mean"
_AGGREGATES = {LARGEST: "arg_max(value, abs(value))", MEAN: "avg(value)"}


@dataclass(frozen=True)
class Measure:
    """A number that heads have.

    Args:
        places: sites and items of which each head has one, "" where it has but one number.
    """

    probe: str
    name: str
    unit: str
    places: tuple[str, ...]

    @property
    def key(self) -> str:
        """As an address has it."""
        return f"{self.probe}/{self.name}"


@dataclass(frozen=True, eq=False)
class Pivot:
    """One measure, heads down and models across; NaN where a model has no such head.

    Args:
        heads: "layer.head".
        n_left_out: heads and models beyond what is shown.
    """

    heads: tuple[str, ...]
    models: tuple[str, ...]
    values: Float[Any, "head model"]
    n_left_out: tuple[int, int]

    def table(self) -> pd.DataFrame:
        """Tidy: head model value."""
        frame = pd.DataFrame(self.values, index=list(self.heads), columns=list(self.models))
        long = frame.rename_axis("head").reset_index().melt("head", var_name="model")
        return long.dropna().reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Profile:
    """All measures of one model's heads; NaN where a head has no such number.

    Args:
        heads: "layer.head".
        n_left_out: heads and measures beyond what is shown.
    """

    model: str
    heads: tuple[str, ...]
    measures: tuple[Measure, ...]
    values: Float[Any, "head measure"]
    n_left_out: tuple[int, int]


class Findings:
    """All rows of one report.

    Args:
        broken: why the results of some jobs cannot be read.
        opened: by a model's label, its name and step as other pages know them.
    """

    def __init__(
        self, table: pd.DataFrame, broken: tuple[str, ...], opened: dict[str, tuple[str, Any]]
    ) -> None:
        import duckdb
        import pyarrow as pa

        self.broken, self.opened, self.n_rows = broken, opened, len(table)
        kept = table.reset_index(drop=True)[list(COLUMNS)]
        kept.insert(0, "row", range(len(kept)))
        self._arrow = pa.Table.from_pandas(kept, preserve_index=False)
        self.nbytes = int(self._arrow.nbytes)
        settings = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        self._connection = duckdb.connect(":memory:", config={**settings, "threads": "2"})
        self._connection.register("findings", self._arrow)
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        # One question at a time: a registered table is known to its own connection alone.
        self._lock = threading.Lock()

    @classmethod
    def read(cls, store: Path) -> "Findings":
        """Read a store; a broken table takes nothing with it but itself.

        Raises:
            WorkbenchError: there is no plan, it cannot be read, or its tables are too large.
        """
        from probes.report.discovery import discovered
        from probes.report.results import Results
        from probes.store import Store

        _check_size(store)
        try:
            results = Results.read(Store(store))
            found, _ = discovered(results.findings())
        except WorkbenchError:
            raise
        except (OSError, TypeError, AttributeError, KeyError) as error:
            raise CheckpointError(f"{store} cannot be read: {str(error)[:300]}") from error
        opened = {
            job.model: (job.spec.removesuffix(f"@{job.step}"), job.step) for job in results.jobs
        }
        return cls(found, tuple(dict.fromkeys(results.broken.values())), opened)

    def block(self, asked: Asked) -> tuple[list[dict[str, Any]], int]:
        """The rows that a grid asks for, and how many there are in all."""
        total = self._all(f"SELECT count(*) FROM findings WHERE {asked.where}", asked.values)
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        rows = self._all(
            f"SELECT {names} FROM findings WHERE {asked.where} ORDER BY {asked.order} LIMIT ? OFFSET ?",
            (*asked.values, asked.count, asked.first),
        )
        return [dict(zip(COLUMNS, map(_plain, row), strict=True)) for row in rows], total[0][0]

    def measures(self) -> list[Measure]:
        """What heads were measured by, in the order of the report."""
        rows = self._all(
            "SELECT probe, measure, min(unit), list(DISTINCT concat_ws('|', site, item)) FROM findings "
            "WHERE head IS NOT NULL AND layer IS NOT NULL GROUP BY ALL ORDER BY min(row)"
        )
        return [
            Measure(probe, name, unit or "", tuple(sorted(places)[:MAX_PLACES]))
            for probe, name, unit, places in rows
        ]

    def models(self) -> list[str]:
        """Models of which heads were measured, in the order of the report."""
        rows = self._all(
            "SELECT model FROM findings WHERE head IS NOT NULL AND layer IS NOT NULL "
            "GROUP BY model ORDER BY min(row)"
        )
        return [str(row[0]) for row in rows]

    def profile(self, model: str, of: str) -> Profile:
        """Every measure of one model's heads.

        Args:
            of: what is made of the places of a head that has several: the "largest" in size, or the "mean".
        """
        rows = self._all(
            f"SELECT layer, head, probe, measure, {_AGGREGATES[of]} FROM findings WHERE model = ? "
            "AND head IS NOT NULL AND layer IS NOT NULL AND isfinite(value) GROUP BY ALL",
            (model,),
        )
        found = pd.DataFrame(
            [
                (f"{layer}.{head}", f"{probe}/{name}", value)
                for layer, head, probe, name, value in rows
            ],
            columns=["head", "measure", "value"],
        )
        heads = [f"{layer}.{head}" for layer, head in sorted({(row[0], row[1]) for row in rows})]
        measured = set(found["measure"])
        measures = [measure for measure in self.measures() if measure.key in measured]
        shown, columns = heads[:MAX_HEADS], measures[:MAX_MEASURES]
        wide = found.pivot(index="head", columns="measure", values="value")
        wide = wide.reindex(index=shown, columns=[measure.key for measure in columns])
        left_out = (len(heads) - len(shown), len(measures) - len(columns))
        values = wide.astype("float64").to_numpy()
        return Profile(model, tuple(shown), tuple(columns), values, left_out)

    def pivot(self, measure: Measure, of: str) -> Pivot:
        """A measure of all heads.

        Args:
            of: a place ("site|item"), or what is made of all places: the "largest" in size, or the "mean".
        """
        whose = "probe = ? AND measure = ? AND head IS NOT NULL AND layer IS NOT NULL"
        values: tuple[Any, ...] = (measure.probe, measure.name)
        if of not in _AGGREGATES:
            whose += " AND concat_ws('|', site, item) = ?"
            values += (of,)
        how = _AGGREGATES.get(of, "any_value(value)")
        rows = self._all(
            f"SELECT layer, head, model, {how}, min(row) AS first FROM findings WHERE {whose} "
            "AND isfinite(value) GROUP BY layer, head, model ORDER BY first",
            values,
        )
        models = list(dict.fromkeys(str(row[2]) for row in rows))
        heads = sorted({(int(row[0]), int(row[1])) for row in rows})
        shown, columns = heads[:MAX_HEADS], models[:MAX_MODELS]
        names = [f"{layer}.{head}" for layer, head in shown]
        table = pd.DataFrame(index=names, columns=columns, dtype="float64")
        found = pd.DataFrame(
            [(f"{row[0]}.{row[1]}", str(row[2]), row[3]) for row in rows],
            columns=["head", "model", "value"],
        )
        wide = found.pivot(index="head", columns="model", values="value")
        table = wide.reindex(index=names, columns=columns).astype("float64")
        left_out = (len(heads) - len(shown), len(models) - len(columns))
        return Pivot(tuple(names), tuple(columns), table.to_numpy(), left_out)

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        import duckdb

        with self._lock:
            try:
                return self._connection.execute(sql, list(values)).fetchall()
            except duckdb.Error as error:
                raise WorkbenchError(
                    f"these results cannot be asked: {str(error)[:300]}"
                ) from error


def _check_size(store: Path) -> None:
    """A few bytes of a hostile file may stand for gigabytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    for path in store.glob("*.parquet"):
        try:
            of_file = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            continue  # it is named as broken where it is read
        total += sum(of_file.row_group(i).total_byte_size for i in range(of_file.num_row_groups))
        if total > MAX_BYTES:
            raise BudgetError(
                f"{store} holds over {MAX_BYTES >> 20} MiB of findings: ask them with `workbench query`"
            )


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and value != value else value
