"""What a batch asks: every probe of every model, with what each is expected to take, before anything runs.

Refusals are known from a model's shape alone, and so are costs; models whose shape has to be loaded for it
are loaded once, and their facts are kept beside the results.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from probes.configs import config_json, make_config
from probes.contract import Probe
from probes.data import ProbeData
from probes.facts import ModelFacts
from probes.jobs import Job
from probes.sources import ModelSource
from probes.store import Store
from workbench.errors import CheckpointError, ConfigError, WorkbenchError
from workbench.models.files import read_json

# A process with torch, the hooks' library and pandas, before it holds a model; measured.
WORKER_BYTES = 420e6
# While a model is read, its file's tensors and its own are both there.
LOADING = 2.2
LOADING_SECONDS_PER_BYTE = 6e-9


@dataclass(frozen=True)
class Asked:
    """What a batch is made of.

    Args:
        settings: fields of probes' configs, by the probe's name.
    """

    models: tuple[ModelSource, ...]
    probes: tuple[Probe, ...]
    data: ProbeData
    settings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """The jobs of a batch, those that have results among them.

    Args:
        waiting: the keys that have none, or a failed one.
    """

    jobs: tuple[Job, ...]
    waiting: frozenset[str]
    data: ProbeData

    @property
    def to_run(self) -> tuple[Job, ...]:
        """Each key once: two names of one model share their results."""
        return tuple({job.key: job for job in self.jobs if job.key in self.waiting}.values())

    def table(self) -> pd.DataFrame:
        """Tidy: model probe status seconds nbytes; status is "done", "refused" or "to run"."""
        return pd.DataFrame(
            [
                {
                    "model": job.model,
                    "probe": job.probe,
                    "status": self._status(job),
                    "seconds": job.seconds,
                    "nbytes": job.nbytes,
                    "reason": job.refusal,
                }
                for job in self.jobs
            ]
        )

    def _status(self, job: Job) -> str:
        if job.refusal:
            return "refused"
        return "to run" if job.key in self.waiting else "done"


def make_plan(asked: Asked, store: Store, *, keep: bool = True) -> Plan:
    """The jobs, with what they are expected to take and which are done.

    Args:
        keep: write down the shapes of models, so that none is loaded for it again.

    Raises:
        ConfigError: a setting that no chosen probe has.
        CheckpointError: a model's files are broken.
    """
    chosen = {probe.name: probe for probe in asked.probes}
    if unknown := sorted(set(asked.settings) - set(chosen)):
        raise ConfigError(
            f"settings for {unknown[0][:60]!r}, which is not asked: asked are {', '.join(chosen)}"
        )
    configs = {name: make_config(chosen[name], asked.settings.get(name, {})) for name in chosen}
    jobs = []
    for source in asked.models:
        facts = known_facts(source, store, keep=keep)
        jobs += [
            _job(source, facts, probe, configs[probe.name], asked.data) for probe in asked.probes
        ]
    records = {job.key: store.record(job.key) for job in jobs}
    waiting = {key for key, record in records.items() if record is None or not record.is_settled}
    return Plan(tuple(jobs), frozenset(waiting), asked.data)


def known_facts(source: ModelSource, store: Store, *, keep: bool = True) -> ModelFacts:
    """A model's shape, from the store if it was asked before."""
    name = f"facts/{source.hash}.json"
    facts = _stored_facts(store.folder / name)
    if facts is None:
        facts = source.facts()
        if keep:
            store.write_text(name, json.dumps(facts.as_dict()))
    return replace(facts, name=source.label)


def _stored_facts(path: Path) -> ModelFacts | None:
    """None where there are none, or others than are asked for today."""
    if not path.is_file():
        return None
    try:
        return ModelFacts(**read_json(path))
    except (CheckpointError, TypeError):
        return None


def _job(source: ModelSource, facts: ModelFacts, probe: Probe, config: Any, data: ProbeData) -> Job:
    refusal = probe.refuses(facts)
    seconds, nbytes = (0.0, 0.0) if refusal else probe.cost(facts, data.facts, config)
    weights = 4.0 * facts.n_params
    return Job(
        model=source.label,
        spec=source.spec,
        step=source.step,
        model_hash=source.hash,
        probe=probe.name,
        module=type(probe).__module__,
        version=probe.version,
        kind=probe.kind,
        config=config_json(config),
        data=data.name,
        data_hash=data.hash,
        seconds=float(seconds),
        nbytes=WORKER_BYTES + max(LOADING * weights, weights + float(nbytes)),
        refusal=refusal,
    )


def read_settings(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings as a command has them: "head-behaviours.n_prompts=32"; values are JSON, or else text.

    Raises:
        ConfigError: not of that form.
    """
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        probe, dot, field = name.rpartition(".")
        if not (equals and dot and probe and field):
            raise ConfigError(f"no setting {word[:60]!r}: write probe.field=value")
        try:
            found.setdefault(probe.strip(), {})[field.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            found[probe.strip()][field.strip()] = value
    return found


def merged(*settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings one over another, the last the strongest."""
    found: dict[str, dict[str, Any]] = {}
    for one in settings:
        for probe, given in one.items():
            if not isinstance(given, Mapping):
                raise WorkbenchError(
                    f"settings of {probe} must be fields and values, not {given!r:.60}"
                )
            found.setdefault(probe, {}).update(given)
    return found
