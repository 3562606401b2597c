"""What a report would ask and take, before it is started: models, probes that refuse some, the estimate."""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cache import ByteCache
from app.report_folder import Wanted
from app.session import Session
from app.trainings import Trainings
from probes.facts import ModelFacts
from probes.sources import ModelSource
from workbench.errors import ConfigError, WorkbenchError

if TYPE_CHECKING:
    from probes.contract import Probe

FIRST = "attn-2l"
QUICK_SECONDS = 6.0
# Of the text that comes along, near enough to tell quick probes from slow ones without reading it.
_STDLIB = (84, 2_000_000, "")
ALL_STEPS = "@*"


@dataclass(frozen=True)
class Choice:
    """A model that can be asked.

    Args:
        spec: as `probes.sources` reads it.
        n_steps: checkpoints of its training.
    """

    spec: str
    label: str
    about: str
    n_steps: int = 0


@dataclass(frozen=True)
class Estimate:
    """A planned report.

    Args:
        seconds: on all cores of this machine together.
        nbytes: of the largest job; `limit` may be used by all together.
        refusals: by probe, why models refuse it; `n_models` in all.
    """

    n_models: int
    n_jobs: int
    n_refused: int
    seconds: float
    nbytes: int
    limit: int
    refusals: dict[str, tuple[str, ...]]


def choices(session: Session) -> list[Choice]:
    """Models of the session's list that are here, and finished runs of perceptrons, which only probes read."""
    listed = [
        Choice(info.name, _label(info.name), info.summary, len(info.steps))
        for info in session.models()
        if info.available
    ]
    return listed + _perceptrons(session.runs)


def _perceptrons(runs: Trainings) -> list[Choice]:
    rows = [row for row in runs.rows() if row.state == "finished" and row.kind == "mlp"]
    root = runs.root or Path()
    return [
        Choice(str(root / row.name), row.name, f"{row.label}: a perceptron trained on {row.task}")
        for row in rows
    ]


def _label(name: str) -> str:
    return Path(name).name or name


def all_probes() -> "tuple[Probe, ...]":
    """Every probe, in the order of a report."""
    from probes.registry import named_probes

    return named_probes("all")


@cache
def quick_probes() -> tuple[str, ...]:
    """Those that take a few seconds of the model that the form begins with; all, where it is not here."""
    from probes.data import DataFacts
    from probes.sources import load_source

    try:
        facts = load_source(FIRST).facts()
    except WorkbenchError:
        return tuple(probe.name for probe in all_probes())
    data = DataFacts(*_STDLIB)
    return tuple(
        probe.name
        for probe in all_probes()
        if not probe.refuses(facts)
        and probe.cost(facts, data, probe.Config()).seconds <= QUICK_SECONDS
    )


def checked(session: Session, wanted: Wanted) -> Wanted:
    """A request with names of models as another process finds them.

    Raises:
        ConfigError: a model that is not offered, or a probe that there is not.
    """
    from probes.registry import probe_names

    offered = {choice.spec for choice in choices(session)}
    session.reports.check_data(wanted.data)
    for spec in wanted.models:
        if spec.removesuffix(ALL_STEPS) not in offered:
            raise ConfigError(f"no model {spec[:60]!r}: choose some of the list")
    if unknown := [name for name in wanted.probes if name not in probe_names()]:
        raise ConfigError(f"no probe {unknown[0][:60]!r}: there are {', '.join(probe_names())}")
    models = tuple(map(_findable, wanted.models))
    data = wanted.data if wanted.data == "stdlib" else str(Path(wanted.data).expanduser().resolve())
    return Wanted(models, wanted.probes, data, wanted.title)


def _findable(spec: str) -> str:
    """A path from the root, where it is one: reports are resumed from any folder."""
    from workbench.models.catalog import existing_path

    name = spec.removesuffix(ALL_STEPS)
    path = existing_path(name)
    is_plain = path is None or "/" not in name
    return spec if is_plain else f"{path.resolve()}{spec[len(name) :]}"  # type: ignore[union-attr]


@dataclass(frozen=True)
class _Remembered(ModelSource):
    """A model whose shape is found out once, since some have to be loaded for it."""

    kept: dict[str, ModelFacts] = field(default_factory=dict, compare=False)

    def facts(self) -> ModelFacts:
        """Its shape."""
        if self.hash not in self.kept:
            self.kept[self.hash] = super().facts()
        return self.kept[self.hash]


class Planner:
    """Estimates, each made once; shapes of models that have to be loaded for it are kept for as long."""

    def __init__(self) -> None:
        self._plans: ByteCache[Any] = ByteCache(64, lambda plan: 1)
        self._data: ByteCache[Any] = ByteCache(
            64 << 20, lambda data: data.facts.n_characters, keep=1
        )
        self._facts: dict[str, ModelFacts] = {}
        self._lock = threading.Lock()

    def estimate(self, wanted: Wanted) -> Estimate:
        """What a report would take; all probes are asked whether they refuse, those not chosen too.

        Raises:
            WorkbenchError: models or data that cannot be read.
        """
        with self._lock:
            plan = self._plan(wanted.models, wanted.data)
        jobs = [job for job in plan.jobs if job.probe in wanted.probes]
        asked = [job for job in jobs if not job.refusal]
        refusals: dict[str, list[str]] = {}
        for job in plan.jobs:
            if job.refusal:
                refusals.setdefault(job.probe, []).append(f"{job.model}: {job.refusal}")
        from probes.workers import available_bytes, default_workers

        return Estimate(
            n_models=len({job.model for job in plan.jobs}),
            n_jobs=len(asked),
            n_refused=len(jobs) - len(asked),
            seconds=sum(job.seconds for job in asked) / default_workers(),
            nbytes=int(max((job.nbytes for job in asked), default=0)),
            limit=available_bytes(),
            refusals={name: tuple(said) for name, said in refusals.items()},
        )

    def _plan(self, models: Sequence[str], data: str) -> Any:
        from probes.data import read_data
        from probes.plan import Asked, make_plan
        from probes.sources import read_sources
        from probes.store import Store

        key = (tuple(models), data)
        plan = self._plans.get(key)
        if plan is None:
            text = self._data.get(data)
            if text is None:
                text = read_data(data)
                self._data.put(data, text)
            sources = tuple(
                _Remembered(one.name, one.step, one.label, self._facts)
                for one in read_sources(models)
            )
            # Nothing is there, and nothing is written.
            plan = make_plan(
                Asked(sources, all_probes(), text, {}), Store(Path(os.devnull) / "none"), keep=False
            )
            self._plans.put(key, plan)
        return plan


def applicable(wanted: Wanted, found: Estimate) -> Wanted:
    """The same without probes that every model refuses.

    Raises:
        ConfigError: none is left.
    """
    probes = tuple(
        name for name in wanted.probes if len(found.refusals.get(name, ())) < found.n_models
    )
    return replace(wanted, probes=probes)
