"""Running one job where it is: the probe imported, the model loaded once, the result checked and kept."""

import json
import time
import traceback
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from probes.configs import make_config
from probes.contract import Probe, Progress, check_table
from probes.data import ProbeData
from probes.jobs import Job, Record
from probes.sources import load_source
from workbench.errors import CheckpointError, UnsupportedError, WorkbenchError


class LoadedModel:
    """The model that was used last: jobs come in an order in which that saves every second loading."""

    def __init__(self) -> None:
        self._name: tuple[str, str] | None = None
        self._model: Any = None

    def of(self, job: Job) -> Any:
        """The model of a job.

        Raises:
            CheckpointError: its files have changed since the plan was made.
        """
        name = (job.spec, job.model_hash)
        if self._name != name:
            self._name = self._model = None
            source = load_source(job.spec)
            if source.hash != job.model_hash:
                raise CheckpointError(
                    f"the files of {job.model} have changed since this report began: ask again"
                )
            self._model, self._name = source.load(), name
        return self._model


def run_job(
    job: Job, data: ProbeData, loaded: LoadedModel, progress: Progress
) -> tuple[Record, pd.DataFrame | None]:
    """How a job ended, and its findings; an error of the probe is a record, not an error."""
    # Once each: a probe asks for the same rows more than once.
    notes: dict[str, None] = {}
    record, table = _ended(job, replace(data, told=notes.setdefault), loaded, progress)
    note = "; ".join(notes).encode("utf-8", "replace").decode()[:2000]
    return replace(record, note=note), table


def _ended(
    job: Job, data: ProbeData, loaded: LoadedModel, progress: Progress
) -> tuple[Record, pd.DataFrame | None]:
    begun = time.perf_counter()
    peak = PeakMemory()
    try:
        model = loaded.of(job)
        begun, peak = time.perf_counter(), PeakMemory()
        table = _findings(job, model, data, progress)
    except UnsupportedError as error:
        return Record.of(job, "refused", error=str(error)), None
    except Exception as error:
        said = " ".join(str(error).split())
        taken = (time.perf_counter() - begun, peak.nbytes())
        return Record.of(
            job,
            "failed",
            error=f"{type(error).__name__}: {said}" if said else type(error).__name__,
            trace="".join(traceback.format_exception(error)),
            taken=taken,
        ), None
    return Record.of(job, "ok", taken=(time.perf_counter() - begun, peak.nbytes())), table


def _findings(job: Job, model: Any, data: ProbeData, progress: Progress) -> pd.DataFrame:
    import numpy as np
    import torch

    probe: Probe = import_module(job.module).PROBE
    if probe.version != job.version:
        raise WorkbenchError(
            f"{job.probe} is version {probe.version} here, {job.version} in the plan: ask again"
        )
    config = make_config(probe, json.loads(job.config))
    # A probe draws from generators of its own; what a library draws must not depend on the jobs before.
    seed = int(job.key[:8], 16)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    table = probe.run(model, data, config, progress)
    check_table(table, job.label)
    return table


class PeakMemory:
    """The most memory that this process takes from now on, over what it holds now."""

    def __init__(self) -> None:
        self._can_reset = _write(Path("/proc/self/clear_refs"), "5")
        self._before = _status_bytes("VmRSS")

    def nbytes(self) -> int | None:
        """Bytes; None where the system does not tell."""
        peak = _status_bytes("VmHWM")
        if not self._can_reset or peak is None or self._before is None:
            return None
        return max(0, peak - self._before)


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


def _status_bytes(name: str) -> int | None:
    path = Path("/proc/self/status")
    if not path.is_file():
        return None
    found = [line for line in path.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * 1024 if found else None
