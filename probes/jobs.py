"""One job: one probe asked of one model. Its key is a hash of all that its numbers depend on.

    key = hash(model's files, probe's name and version, config, data)      data left out for kind "weights"

Equal keys have equal results, whatever the model or the data are called.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Job:
    """A question still to be asked, in plain values: it travels to other processes as JSON.

    Args:
        model: the label under which the answer is listed.
        spec: what `load_source` reads, with `step`.
        module: where the probe is, as `PROBE`.
        config: the probe's, as one line of JSON.
        seconds: estimated; likewise `nbytes`, the loaded model included.
        refusal: why it cannot be asked; "" where it can.
        is_broken: whether that is because the model cannot be read: a failure, to be asked again.
    """

    model: str
    spec: str
    step: int | None
    model_hash: str
    probe: str
    module: str
    version: int
    kind: str
    config: str
    data: str
    data_hash: str
    seconds: float = 0.0
    nbytes: float = 0.0
    refusal: str = ""
    is_broken: bool = False

    @property
    def key(self) -> str:
        """Changes with anything that the result depends on; 24 hexadecimal digits."""
        parts = [self.model_hash, self.probe, self.version, json.loads(self.config)]
        parts.append("" if self.kind == "weights" else self.data_hash)
        text = json.dumps(parts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    @property
    def label(self) -> str:
        """What is asked of whom."""
        return f"{self.probe} of {self.model}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "Job":
        """What `as_dict` gave.

        Raises:
            WorkbenchError: other fields.
        """
        try:
            job = cls(**given)
            _ = job.key
        except (TypeError, ValueError) as error:
            raise WorkbenchError(f"this is no job: {error}") from error
        return job


@dataclass(frozen=True)
class Record:
    """How a job ended.

    Args:
        status: "ok", "failed" or "refused".
        peak_bytes: the most memory that the probe took beside the loaded model; None where it is not known.
        error: why it failed or was refused, in one line; `trace` where in the program.
        made_by: versions of what computed it.
        note: what was read of the data, where that is not all that was asked for.
    """

    key: str
    model: str
    model_hash: str
    step: int | None
    probe: str
    version: int
    kind: str
    config: dict[str, Any]
    data: str
    data_hash: str
    status: str
    seconds: float
    peak_bytes: int | None
    error: str
    trace: str
    made_by: dict[str, Any]
    note: str = ""

    @classmethod
    def of(
        cls,
        job: Job,
        status: str,
        *,
        error: str = "",
        trace: str = "",
        taken: tuple[float, int | None] = (0.0, None),
    ) -> "Record":
        """The record of a job that ended so; `taken` is seconds and bytes."""
        # The text of an error may hold whatever a broken file held.
        return cls(
            key=job.key,
            model=job.model,
            model_hash=job.model_hash,
            step=job.step,
            probe=job.probe,
            version=job.version,
            kind=job.kind,
            config=json.loads(job.config),
            data=job.data if job.kind == "data" else "",
            data_hash=job.data_hash if job.kind == "data" else "",
            status=status,
            seconds=taken[0],
            peak_bytes=taken[1],
            error=error.encode("utf-8", "replace").decode()[:2000],
            trace=trace.encode("utf-8", "replace").decode()[-8000:],
            made_by=made_by(),
        )

    @classmethod
    def of_refusal(cls, job: Job) -> "Record":
        """The record of a job that cannot be asked, as its plan says."""
        return cls.of(job, "failed" if job.is_broken else "refused", error=job.refusal)

    @property
    def is_settled(self) -> bool:
        """Whether asking again would give the same: failures are asked again."""
        return self.status in ("ok", "refused")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def made_by() -> dict[str, Any]:
    """Versions of what computes."""
    from workbench.results import provenance

    return provenance(command="report")
