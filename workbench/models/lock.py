"""One lock per model: hooks are state of the module, so two threads must never run one model at once."""

import threading
from types import TracebackType
from typing import Any


class RunLock:
    """A re-entrant lock that a copied model does not share."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> "RunLock":
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __deepcopy__(self, memo: dict[int, Any]) -> "RunLock":
        return RunLock()

    def __reduce__(self) -> tuple[type["RunLock"], tuple[()]]:
        return RunLock, ()
