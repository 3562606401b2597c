"""Results on disk, by key; reading them needs no torch, and killing their writer at any moment harms none.

    <store>/<key>.parquet    the findings of a job that went well, the same bytes on every run
    <store>/<key>.json       how it ended: status, seconds, peak bytes, error; written last, and so decisive
    <store>/plan.json        what was last asked: every job under the label of its model

`findings` and `jobs` are what the plan asks for; results of earlier plans stay, and are found again by key.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from probes.contract import COLUMNS, check_table, findings_table
from probes.jobs import Job, Record
from probes.locked import locked
from workbench.errors import CheckpointError, WorkbenchError
from workbench.models.files import read_json
from workbench.results import is_whole_table, read_table, save_table
from workbench.writing import write_atomically

PLAN_FILE = "plan.json"
MAX_RECORD_BYTES = 1 << 20
MAX_PLAN_BYTES = 256 << 20
JOB_COLUMNS = (
    "model", "model_hash", "step", "probe", "version", "status", "seconds", "peak_bytes",
    "error", "note", "expected_seconds", "expected_bytes", "data", "data_hash", "config", "key",
)  # fmt: skip
WHOSE = ("model", "model_hash", "step", "probe", "version")
FINDINGS_COLUMNS = (*WHOSE, *COLUMNS)


class StoreError(WorkbenchError):
    """Results that cannot be written; those that were are kept."""


class Store:
    """A folder of results."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    # Writing

    def save(self, record: Record, table: pd.DataFrame | None = None) -> None:
        """Keep how a job ended, and its findings if it went well.

        Raises:
            StoreError: the disk is full, or the folder cannot be written to.
        """
        try:
            if table is not None:
                facts = {
                    name: getattr(record, name)
                    for name in ("model_hash", "probe", "version", "config", "data_hash")
                }
                # No times and no labels: the same job gives the same bytes.
                save_table(table, self.table_path(record.key), {**facts, **record.made_by})
            text = json.dumps(record.as_dict(), indent=1)
            write_atomically(self._record_path(record.key), text)
        except (OSError, WorkbenchError) as error:
            raise self._full(error) from error

    def write_plan(self, jobs: Sequence[Job]) -> None:
        """Put on record what is asked.

        Raises:
            StoreError: the folder cannot be written to.
        """
        self.write_text(PLAN_FILE, json.dumps({"jobs": [job.as_dict() for job in jobs]}, indent=1))

    def write_text(self, name: str, text: str) -> None:
        """Write a file beside the results.

        Raises:
            StoreError: the disk is full, or the folder cannot be written to.
        """
        try:
            write_atomically(self.folder / name, text)
        except (OSError, WorkbenchError) as error:
            raise self._full(error) from error

    def _full(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or str(error)
        return StoreError(
            f"cannot write results to {self.folder}: {reason}. What was written is kept: "
            "free some space, and the same command goes on"
        )

    def clear_scratch(self) -> None:
        """Remove what killed writers left unfinished."""
        for path in self.folder.glob(".saving-*"):
            path.unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Held by a run: two at once would do everything twice.

        Raises:
            WorkbenchError: another run holds it.
        """
        return locked(self.folder / ".lock", f"another run is writing to {self.folder}")

    # Reading

    def record(self, key: str) -> Record | None:
        """How a job ended; None if it has not, or if what stands there cannot be read: it is then done anew."""
        path = self._record_path(key)
        if not path.is_file():
            return None
        try:
            values = read_json(path, limit=MAX_RECORD_BYTES)
        except CheckpointError:
            return None
        # Records of before there were notes have none.
        values = {"note": "", **values}
        if set(values) != {field.name for field in fields(Record)} or values["key"] != key:
            return None
        record = Record(**values)
        if record.status not in ("ok", "failed", "refused"):
            return None
        missing = record.status == "ok" and not self.table_path(key).is_file()
        return None if missing else record

    def is_settled(self, key: str) -> bool:
        """Whether a job need not be asked again: it has ended well, and its table is whole by its end."""
        record = self.record(key)
        if record is None or not record.is_settled:
            return False
        return record.status != "ok" or is_whole_table(self.table_path(key))

    def table(self, key: str) -> pd.DataFrame:
        """The findings of a job that went well.

        Raises:
            WorkbenchError: there are none, or the file is broken.
        """
        path = self.table_path(key)
        table, _ = read_table(path)
        check_table(table, str(path))
        return table

    def plan(self) -> tuple[Job, ...]:
        """What was last asked.

        Raises:
            WorkbenchError: nothing was, or the file is broken.
        """
        path = self.folder / PLAN_FILE
        if not path.is_file():
            raise WorkbenchError(
                f"no results in {self.folder}: `workbench report --out DIR` writes them to DIR/store"
            )
        listed = read_json(path, limit=MAX_PLAN_BYTES).get("jobs")
        if not isinstance(listed, list) or not all(isinstance(job, dict) for job in listed):
            raise WorkbenchError(f"{path} is no plan: it lists no jobs")
        return tuple(map(Job.from_dict, listed))

    def records(self) -> tuple[tuple[Job, Record | None], ...]:
        """Every job of the plan and how it ended, None where it has not."""
        return tuple((job, self.record(job.key)) for job in self.plan())

    def jobs(self) -> pd.DataFrame:
        """One row for each job of the plan, JOB_COLUMNS; status "waiting" where it has not ended."""
        rows = [_job_row(job, record) for job, record in self.records()]
        frame = pd.DataFrame(rows, columns=list(JOB_COLUMNS))
        counts = ("step", "version", "peak_bytes")
        numbers = ("seconds", "expected_seconds", "expected_bytes")
        texts = [name for name in JOB_COLUMNS if name not in counts + numbers]
        types = {name: "Int64" for name in counts} | {name: "float64" for name in numbers}
        return frame.astype(types | {name: "str" for name in texts})

    def findings(self) -> pd.DataFrame:
        """All findings of the plan: model, model_hash, step, probe, version, then COLUMNS.

        Raises:
            WorkbenchError: a table is broken; the message names the file to remove.
        """
        parts = []
        for job, record in self.records():
            if record is None or record.status != "ok":
                continue
            try:
                table = self.table(record.key)
            except WorkbenchError as error:
                raise WorkbenchError(
                    f"{error}; remove {self._record_path(record.key)} and run the report again"
                ) from error
            for place, name in enumerate(WHOSE):
                table.insert(place, name, _whose(name, getattr(job, name), len(table)))
            parts.append(table)
        if not parts:
            empty = findings_table([])
            for place, name in enumerate(WHOSE):
                empty.insert(place, name, _whose(name, None, 0))
            return empty
        return pd.concat(parts, ignore_index=True)

    def tables(self, probe: str) -> dict[str, pd.DataFrame]:
        """A probe's findings by the label of the model, as `Probe.figures` takes them."""
        return {
            job.model: self.table(record.key)
            for job, record in self.records()
            if job.probe == probe and record is not None and record.status == "ok"
        }

    def frame(self, sql: str) -> pd.DataFrame:
        """What a SELECT over `findings` and `jobs` gives.

        Raises:
            WorkbenchError: anything but one SELECT, or one that cannot be answered.
        """
        from probes.queries import answer

        return answer(sql, {"findings": self.findings(), "jobs": self.jobs()})

    def table_path(self, key: str) -> Path:
        """Where the findings of a job are."""
        return self.folder / f"{key}.parquet"

    def _record_path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _whose(name: str, value: Any, count: int) -> Any:
    dtype = "Int64" if name in ("step", "version") else "str"
    return pd.array([value] * count, dtype=dtype)


def _job_row(job: Job, record: Record | None) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in WHOSE},
        "status": record.status if record is not None else "waiting",
        "seconds": record.seconds if record is not None else float("nan"),
        "peak_bytes": record.peak_bytes if record is not None else None,
        "error": record.error if record is not None else "",
        "note": record.note if record is not None else "",
        "expected_seconds": job.seconds,
        "expected_bytes": job.nbytes,
        "data": job.data if job.kind == "data" else "",
        "data_hash": job.data_hash if job.kind == "data" else "",
        "config": job.config,
        "key": job.key,
    }
