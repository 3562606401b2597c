"""A process that answers one job at a time: `python -m probes.worker STORE`, lines of JSON in and out.

in    {"data": {…}}    once             out   {"ready": true}
      {"job": {…}}                            {"share": 0.4, "doing": "prompts"}
                                              {"record": {…}} or {"disk": "why nothing can be written"}

It ends itself when its input ends, also in the midst of a job: whoever started it is then gone.
"""

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

# Several workers share the cores: one thread each, told before torch is loaded.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

SECONDS_BETWEEN_TOLD = 0.1


def main(store: str) -> None:
    """Answer jobs until the input ends."""
    tell = _private_output()
    orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    first = orders.get()
    from probes.data import ProbeData
    from probes.running import LoadedModel
    from probes.store import Store

    given = first["data"]
    data = ProbeData(tuple(given["documents"]), given["name"], given["is_prompts"])
    loaded, kept = LoadedModel(), Store(store)
    tell({"ready": True})
    while True:
        tell(_answer(orders.get()["job"], data, loaded, kept, tell))


def _answer(given: dict[str, Any], data: Any, loaded: Any, kept: Any, tell: Any) -> dict[str, Any]:
    """Run a job and keep its result: it is on disk before anyone is told."""
    from probes.jobs import Job
    from probes.running import run_job
    from probes.store import StoreError

    record, table = run_job(Job.from_dict(given), data, loaded, _Progress(tell))
    try:
        kept.save(record, table)
    except StoreError as error:
        return {"disk": str(error)}
    return {"record": record.as_dict()}


class _Progress:
    """Tells how far a probe is, not more often than anyone can see."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell, self._last = tell, 0.0

    def __call__(self, share: float, doing: str) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_TOLD:
            self._last = now
            self._tell({"share": float(share), "doing": str(doing)})


def _listen(orders: "SimpleQueue[dict[str, Any]]") -> None:
    """Pass on what is asked; the end of the input is the end of this process."""
    for line in sys.stdin.buffer:
        orders.put(json.loads(line))
    os._exit(0)


def _private_output() -> Callable[[dict[str, Any]], None]:
    """A way to tell that nothing else writes to: what a library prints goes to the error output."""
    private = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)

    def tell(message: dict[str, Any]) -> None:
        private.write(json.dumps(message).encode() + b"\n")

    return tell


if __name__ == "__main__":
    main(sys.argv[1])
