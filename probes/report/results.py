"""What a store holds, as a report reads it: jobs in order, their tables, and why some have none."""

import json
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from probes.facts import ModelFacts
from probes.jobs import Job, Record
from probes.registry import probe_names
from probes.store import PLAN_FILE, WHOSE, Store
from workbench.errors import CheckpointError, WorkbenchError
from workbench.models.files import read_json


@dataclass(frozen=True, eq=False)
class Results:
    """Everything of one plan.

    Args:
        records: how jobs ended, by key.
        tables: findings of those that went well, by key.
        broken: why a table cannot be read, by key.
        facts: shapes of models, by the hash of their files, where they are known.
    """

    jobs: tuple[Job, ...]
    records: dict[str, Record]
    tables: dict[str, pd.DataFrame]
    broken: dict[str, str]
    facts: dict[str, ModelFacts]

    @classmethod
    def read(cls, store: Store) -> "Results":
        """Read a store; a broken table takes nothing with it but itself.

        Raises:
            WorkbenchError: there is no plan, or it cannot be read.
        """
        jobs: dict[tuple[str, str], Job] = {}
        records: dict[str, Record] = {}
        tables: dict[str, pd.DataFrame] = {}
        broken: dict[str, str] = {}
        for listed, record in store.records():
            job = _checked(listed, store)
            jobs[job.model, job.key] = job
            if record is None or job.key in records:
                continue
            records[job.key] = record
            if not isinstance(record.seconds, int | float) or not isinstance(record.made_by, dict):
                broken[job.key] = "the record of how it ended is broken"
            elif record.status == "ok":
                try:
                    tables[job.key] = store.table(job.key)
                except WorkbenchError as error:
                    broken[job.key] = f"its table is broken: {error}"
        hashes = {job.model_hash: _facts(store, job.model_hash) for job in jobs.values()}
        facts = {name: of for name, of in hashes.items() if of is not None}
        return cls(tuple(jobs.values()), records, tables, broken, facts)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Labels, in the order of the plan."""
        return tuple(dict.fromkeys(job.model for job in self.jobs))

    @cached_property
    def probes(self) -> tuple[str, ...]:
        """Names, in the order of the registry; those that it does not have come last."""
        asked = dict.fromkeys(job.probe for job in self.jobs)
        known = [name for name in probe_names() if name in asked]
        return (*known, *(name for name in asked if name not in known))

    @cached_property
    def side_by_side(self) -> tuple[str, ...]:
        """Models without the checkpoints that come before the last of their series, equal ones once."""
        return tuple(label for label in self._last_of_series if label not in self.repeats)

    @cached_property
    def repeats(self) -> dict[str, str]:
        """Labels of which everything is told under another, and that other: names of one model.

        Of a model and a checkpoint of it that is equal, as the last often is, the model is told of.
        """
        asked: dict[str, set[str]] = {label: set() for label in self._last_of_series}
        steps = {job.model: job.step for job in self.jobs}
        for job in self.jobs:
            if job.model in asked:
                asked[job.model].add(job.key)
        found: dict[str, str] = {}
        first: dict[frozenset[str], str] = {}
        for label in sorted(asked, key=lambda label: steps[label] is not None):
            kept = first.setdefault(frozenset(asked[label]), label)
            if kept != label:
                found[label] = kept
        return found

    @cached_property
    def _last_of_series(self) -> tuple[str, ...]:
        from probes.pictures.panels import split_series

        # Told apart by their places alone: which are equal is for `repeats` to say.
        apart = {label: pd.DataFrame({"at": [at]}) for at, label in enumerate(self.models)}
        return tuple(split_series(apart)[0])

    @cached_property
    def distinct(self) -> tuple[Job, ...]:
        """One job for each key, under the label that tables of models have."""
        found: dict[str, Job] = {}
        for job in self.jobs:
            if job.key not in found or found[job.key].model in self.repeats:
                found[job.key] = job
        return tuple(found.values())

    def of_probe(self, probe: str) -> dict[str, pd.DataFrame]:
        """A probe's findings by model, as `Probe.figures` takes them."""
        return {
            job.model: self.tables[job.key]
            for job in self.jobs
            if job.probe == probe and job.key in self.tables
        }

    def status(self, job: Job) -> tuple[str, str]:
        """How a job ended, "broken" and "waiting" among the ways, and why."""
        record = self.records.get(job.key)
        if record is None:
            return "waiting", "it has not been run to its end"
        if job.key in self.broken:
            return "broken", self.broken[job.key]
        return record.status, record.error

    def findings(self) -> pd.DataFrame:
        """All findings: `key`, whose they are, then COLUMNS."""
        parts = []
        for job in self.jobs:
            if job.key in self.tables:
                table = self.tables[job.key].copy()
                for place, name in enumerate(WHOSE):
                    dtype = "Int64" if name in ("step", "version") else "str"
                    value = pd.array([getattr(job, name)] * len(table), dtype=dtype)
                    table.insert(place, name, value)
                table.insert(0, "key", pd.array([job.key] * len(table), dtype="str"))
                parts.append(table)
        return pd.concat(parts, ignore_index=True) if parts else _none()


def _checked(job: Job, store: Store) -> Job:
    """A job of a plan, whoever wrote it; its names are text that a file can hold."""
    texts = (job.model, job.spec, job.data, job.config, job.probe, job.model_hash, job.data_hash)
    is_right = (
        all(isinstance(text, str) for text in texts)
        and all(text.isprintable() for text in texts[-3:])
        and isinstance(job.version, int)
        and (job.step is None or isinstance(job.step, int))
        and isinstance(json.loads(job.config), dict)
    )
    if not is_right:
        raise WorkbenchError(f"{store.folder / PLAN_FILE} is broken: it lists {job!r:.200}")
    names = {name: getattr(job, name) for name in ("model", "spec", "data")}
    return replace(
        job, **{name: text.encode("utf-8", "replace").decode() for name, text in names.items()}
    )


def _none() -> pd.DataFrame:
    from probes.contract import findings_table

    table = findings_table([])
    for place, name in enumerate(("key", *WHOSE)):
        dtype = "Int64" if name in ("step", "version") else "str"
        table.insert(place, name, pd.array([], dtype=dtype))
    return table


def _facts(store: Store, model_hash: str) -> ModelFacts | None:
    """None where there are none that can be read: a report does without."""
    # A hash names a file here.
    if not model_hash.isalnum():
        return None
    path = store.folder / "facts" / f"{model_hash}.json"
    try:
        return ModelFacts(**read_json(path)) if path.is_file() else None
    except (CheckpointError, TypeError):
        return None
