"""A cache that stays within a number of bytes: what was used longest ago leaves first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from workbench.errors import BudgetError

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Values by key, the least recently used dropped once their sizes pass the limit.

    Args:
        limit: most bytes that all values may take together.
        size: how many bytes a value takes.
        keep: how many of the newest stay whatever their size.
    """

    def __init__(self, limit: int, size: Callable[[Value], int], *, keep: int = 0) -> None:
        self.limit, self.keep = limit, keep
        self._size = size
        self._held: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, now the most recently used; None if it was never here or has left."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Hashable, value: Value) -> None:
        """Hold a value, dropping as many old ones as it needs.

        Raises:
            BudgetError: the value alone is larger than the whole cache.
        """
        size = self._size(value)
        if size > self.limit and not self.keep:
            raise BudgetError(
                f"this result takes {size >> 20} MiB and the dashboard keeps {self.limit >> 20} MiB"
            )
        with self._lock:
            self._held[key] = (value, size)
            self._held.move_to_end(key)
            while self._total() > self.limit and len(self._held) > max(1, self.keep):
                self._held.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return self._total()

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._held

    def _total(self) -> int:
        return sum(size for _, size in self._held.values())
