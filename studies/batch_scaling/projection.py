"""What a sweep would take, from what was measured on one machine.

    work        W = Σ over jobs (seconds in the probe + loading its model + the engine's own seconds per job)
    on p cores  W / p  ≤  makespan  ≤  W / p + (longest job)(1 - 1/p)        any list schedule; Graham 1969
    one place   planning, keeping results and writing the report do not go faster with more machines

Every job loads its model: on many machines two jobs of one model seldom meet in one process.
"""

from dataclasses import dataclass

import pandas as pd

HOUR = 3600.0


@dataclass(frozen=True)
class Sweep:
    """What is measured of a sweep's parts, in seconds.

    Args:
        probes: of each job of one model, by probe.
        loading: of the model, once a job.
        per_job: the engine's own, on a worker.
        keeping: of a job's result, in the one process that gathers them; likewise
        planning: of a job, and
        reporting: of a model.
    """

    probes: dict[str, float]
    loading: float
    per_job: float
    keeping: float
    planning: float
    reporting: float

    def row(self, models: int, cores: int) -> dict[str, float]:
        """Hours for so many models on so many cores."""
        jobs = models * len(self.probes)
        each = self.loading + self.per_job
        work = models * sum(self.probes.values()) + jobs * each
        longest = max(self.probes.values()) + each
        gathering = jobs * self.keeping
        alone = jobs * self.planning + models * self.reporting
        least = max(work / cores, longest, gathering)
        return {
            "models": models,
            "cores": cores,
            "jobs": jobs,
            "work": work / HOUR,
            "least": (least + alone) / HOUR,
            "most": (max(work / cores + longest * (1 - 1 / cores), gathering) + alone) / HOUR,
            "alone": (gathering + alone) / HOUR,
            "efficiency": work / cores / (least + alone),
        }


def projected(kinds: dict[str, Sweep], models: int, cores: tuple[int, ...]) -> pd.DataFrame:
    """One row for each kind of model and number of cores."""
    return pd.DataFrame(
        [{"kind": kind, **sweep.row(models, n)} for kind, sweep in kinds.items() for n in cores]
    )
