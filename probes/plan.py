"""What a batch asks: every probe of every model, with what each is expected to take, before anything runs.

Refusals are known from a model's shape alone, and so are costs; models whose shape has to be loaded for it
are loaded once, and their facts are kept beside the results. A model that cannot be read fails in its place,
as a probe does, and the others are asked; only where none can be read is that an error.
"""

import hashlib
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
from probes.store import Store, StoreError
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
        waiting: the keys that have none, a failed one or one that cannot be read; all, if asked anew.
    """

    jobs: tuple[Job, ...]
    waiting: frozenset[str]
    data: ProbeData

    @property
    def to_run(self) -> tuple[Job, ...]:
        """Each key once: two names of one model share their results."""
        return tuple({job.key: job for job in self.jobs if job.key in self.waiting}.values())

    def table(self) -> pd.DataFrame:
        """Tidy: model probe status seconds nbytes reason; status is "done", "refused", "broken" or "to run"."""
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
            return "broken" if job.is_broken else "refused"
        return "to run" if job.key in self.waiting else "done"


def make_plan(asked: Asked, store: Store, *, keep: bool = True, anew: bool = False) -> Plan:
    """The jobs, with what they are expected to take and which are done.

    Args:
        keep: write down the shapes of models, so that none is loaded for it again.
        anew: ask everything once more; what is there stays until its successor is.

    Raises:
        ConfigError: a setting that no chosen probe has.
        CheckpointError: no model at all can be read.
    """
    chosen = {probe.name: probe for probe in asked.probes}
    if unknown := sorted(set(asked.settings) - set(chosen)):
        raise ConfigError(
            f"settings for {unknown[0][:60]!r}, which is not asked: asked are {', '.join(chosen)}"
        )
    configs = {name: make_config(chosen[name], asked.settings.get(name, {})) for name in chosen}
    found = [(source, _read(source, store, keep)) for source in asked.models]
    if all(isinstance(facts, str) for _, facts in found):
        raise CheckpointError("; ".join(f"{source.label}: {why}" for source, why in found[:3]))
    jobs = [
        _broken_job(source, facts, probe, configs[probe.name], asked.data)
        if isinstance(facts, str)
        else _job(source, facts, probe, configs[probe.name], asked.data)
        for source, facts in found
        for probe in asked.probes
    ]
    keys = {job.key for job in jobs}
    waiting = keys if anew else {key for key in keys if not store.is_settled(key)}
    return Plan(tuple(jobs), frozenset(waiting), asked.data)


def _read(source: ModelSource, store: Store, keep: bool) -> ModelFacts | str:
    """A model's shape, or why it cannot be read, whatever its files do to whoever reads them."""
    try:
        return known_facts(source, store, keep=keep)
    except StoreError:
        raise
    except WorkbenchError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


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
    return replace(
        _named_job(source, source.hash, probe, config, data),
        seconds=float(seconds),
        # A worker holds the text, whatever its probe reads.
        nbytes=WORKER_BYTES + data.nbytes + max(LOADING * weights, weights + float(nbytes)),
        refusal=refusal,
    )


def _broken_job(source: ModelSource, why: str, probe: Probe, config: Any, data: ProbeData) -> Job:
    try:
        model_hash = source.hash
    except CheckpointError:
        # Files that cannot be read have no hash: the name keeps two such models apart.
        name = source.spec.encode("utf-8", "surrogateescape")
        model_hash = hashlib.blake2b(name, digest_size=8).hexdigest()
    job = _named_job(source, model_hash, probe, config, data)
    return replace(job, refusal=why or "it cannot be read", is_broken=True)


def _named_job(
    source: ModelSource, model_hash: str, probe: Probe, config: Any, data: ProbeData
) -> Job:
    return Job(
        model=source.label,
        spec=source.spec,
        step=source.step,
        model_hash=model_hash,
        probe=probe.name,
        module=type(probe).__module__,
        version=probe.version,
        kind=probe.kind,
        config=config_json(config),
        data=data.name,
        data_hash=data.hash,
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
