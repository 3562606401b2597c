"""What a run will cost, told by a process of its own, which a plan that is too large may take with it.

    python -m app.estimator      lines of JSON in and out: {"plan": "…"} → {"found": {…}} or {"error": "…"}

It is started when the first plan is asked about, answers one after another, ends when the server does, and is
killed and started anew where a plan takes too long or too much memory.
"""

import json
import os
import resource
import subprocess
import sys
import threading
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from app.cache import ByteCache
from workbench.errors import UnsupportedError, WorkbenchError
from workbench.processes import environment

if TYPE_CHECKING:
    from workbench.training.estimate import Estimate

PATIENCE = 60.0
"""Seconds: the first plan of a text has it read and its tokens made."""
MAX_BYTES = 12 << 30
_KEPT = 256


class Estimator:
    """Asks one plan at a time, since two at once would each measure the other.

    Args:
        patience: seconds that a plan may take.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._known: ByteCache[Estimate] = ByteCache(_KEPT, lambda found: 1)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: SimpleQueue[bytes] = SimpleQueue()

    def __call__(self, plan: str) -> "Estimate":
        """What a plan, written as JSON, will cost.

        Raises:
            WorkbenchError: it cannot be run, or takes too long to tell.
        """
        from workbench.training.estimate import Estimate

        with self._lock:
            found = self._known.get(plan)
            if found is None:
                answer = self._ask(plan)
                if "error" in answer:
                    raise UnsupportedError(str(answer["error"]))
                found = Estimate(**answer["found"])
                self._known.put(plan, found)
        return found

    def close(self) -> None:
        """End the process; who waits for its answer is told that there is none."""
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end()

    def _ask(self, plan: str) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"plan": plan}).encode() + b"\n")
            process.stdin.flush()
            line = self._said.get(timeout=self.patience)
        except Empty:
            self._end()
            raise UnsupportedError(
                f"no estimate: a few steps of this take over {self.patience:.0f} seconds"
            ) from None
        except OSError:
            line = b""
        if not line:
            self._end()
            raise UnsupportedError(
                "no estimate: a few steps of this take more memory than there is"
            )
        return dict(json.loads(line))

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "app.estimator"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env=environment(),
                )
            except OSError as error:
                raise WorkbenchError(f"no estimate: {error.strerror}") from error
            self._said = SimpleQueue()
            out = self._process.stdout
            threading.Thread(target=_hear, args=(out, self._said), daemon=True).start()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _hear(out: IO[bytes], said: "SimpleQueue[bytes]") -> None:
    """Pass on what is said; nothing, once, where its sayer has ended."""
    with out:
        for line in out:
            said.put(line)
    said.put(b"")


def main() -> None:
    """Answer plans until the input ends, which also ends what is in the midst of one."""
    plans: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(plans,), daemon=True).start()
    told = os.fdopen(os.dup(1), "wb", buffering=0)
    # What a library prints is no answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MAX_BYTES if hard == resource.RLIM_INFINITY else min(MAX_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    while True:
        told.write(json.dumps(_answer(plans.get())).encode() + b"\n")


def _answer(line: bytes) -> dict[str, Any]:
    from dataclasses import asdict

    from workbench.training.estimate import estimate
    from workbench.training.plan import Plan

    try:
        return {"found": asdict(estimate(Plan.from_json(json.loads(line)["plan"])))}
    except WorkbenchError as error:
        return {"error": str(error)}
    except (MemoryError, RuntimeError) as error:  # torch says so where an allocation fails
        return {"error": f"no estimate: {str(error)[:300]}"}


def _listen(plans: "SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        plans.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
