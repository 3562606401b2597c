"""Which job comes next: of a model that is loaded already, or else of one that nobody has; long ones first."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from probes.jobs import Job


def next_job(
    waiting: Sequence[Job], spec: str, loaded: Collection[str], free: int | float
) -> Job | None:
    """The job for a worker that holds the model `spec`; None if nothing fits.

    Args:
        loaded: the models that busy workers hold.
        free: bytes that are left.
    """
    fitting = [job for job in waiting if job.nbytes <= free]
    if not fitting:
        return None
    left: defaultdict[str, float] = defaultdict(float)
    for job in waiting:
        left[job.spec] += job.seconds

    def rank(job: Job) -> tuple[bool, bool, float, str, float]:
        # The name keeps jobs of two models with equal times apart, or a worker would load them in turn.
        return job.spec == spec, job.spec not in loaded, left[job.spec], job.spec, job.seconds

    return max(fitting, key=rank)
