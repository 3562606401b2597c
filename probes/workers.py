"""Processes of our own that run jobs; they are told and tell by lines of JSON, and die with us."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from probes.data import ProbeData
from probes.jobs import Job
from workbench.errors import WorkbenchError
from workbench.processes import module_path

MEMINFO = Path("/proc/meminfo")
# The limit of a container and what its processes use of it, in both versions of Linux' control groups.
CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


class Worker:
    """One process, and what it is doing.

    Attributes:
        job: what it was given and has not answered; None while it waits.
        spec: the model that it has loaded.
        share: how far its job is, and `doing` what it says of it.
    """

    def __init__(self, store: Path, data: ProbeData) -> None:
        self.job: Job | None = None
        self.spec = ""
        self.share, self.doing = 0.0, ""
        self.is_ready = False
        self._buffer = b""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        # A string's hash, and so the order of a set, must not differ from one process to the next.
        env = os.environ | {
            "PYTHONPATH": module_path(),
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "probes.worker", str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=env,
            # Ctrl-C is for us: we then end our workers ourselves.
            start_new_session=True,
        )
        self._send({"data": data.as_dict()})

    def give(self, job: Job) -> None:
        """Have it run a job."""
        self.job, self.spec, self.share, self.doing = job, job.spec, 0.0, "starting"
        self._send({"job": job.as_dict()})

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            # It has died; the end of its output will say so, and its job is then given to another.
            return

    def fileno(self) -> int:
        """Of its output, to wait for."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def messages(self) -> list[dict[str, Any]] | None:
        """What it has told since; None if it is dead."""
        chunk = os.read(self.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def death(self) -> str:
        """How it ended, in words."""
        self.kill()
        code = self.process.returncode
        if code == -signal.SIGKILL:
            return "its process was killed, most likely because memory ran out"
        if code < 0:
            return f"its process ended by {signal.Signals(-code).name}"
        lines = self._last_lines()
        return f"its process ended with code {code}" + (f": {lines[-1][:300]}" if lines else "")

    def _last_lines(self) -> list[str]:
        self._said.seek(0)
        return self._said.read()[-4000:].decode("utf-8", "replace").strip().splitlines()

    def kill(self) -> None:
        """End it now; what it was writing appears whole or not at all."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let go of it and its pipes."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self._said):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what it was still to be told


def default_workers() -> int:
    """As many processes as there are cores for us."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, cores or 1)


def available_bytes() -> int:
    """Memory that can be had now, with a tenth left to others.

    Raises:
        WorkbenchError: the system does not tell.
    """
    found = None
    if MEMINFO.is_file():
        lines = [line for line in MEMINFO.read_text().splitlines() if "MemAvailable" in line]
        found = int(lines[0].split()[1]) * 1024 if lines else None
    elif hasattr(os, "sysconf"):
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if found is None:
        raise WorkbenchError("this system does not tell how much memory there is: give --memory")
    for folder, limit, used in CGROUPS:
        left = _left_of(folder / limit, folder / used, folder / "memory.stat")
        found = found if left is None else min(found, left)
    return int(0.9 * found)


def _left_of(limit: Path, used: Path, stat: Path) -> int | None:
    """Bytes of a group's limit that its processes do not hold; None where it has none."""
    text = limit.read_text().strip() if limit.is_file() else ""
    if not text.isdigit():
        return None
    held = int(used.read_text()) if used.is_file() else 0
    # Of files that were read, what has not been asked for of late is given back when memory is needed.
    lines = stat.read_text().splitlines() if stat.is_file() else []
    idle = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    given_back = idle.get("total_inactive_file", idle.get("inactive_file", 0))
    return max(0, int(text) - max(0, held - given_back))
