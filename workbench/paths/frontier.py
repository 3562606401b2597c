"""The books of a search for paths: what was found, what is open, when to stop, how many there are at all."""

import heapq
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from workbench.paths.feeds import Place, Suffix, Suffixes
from workbench.stream.parts import Part

# A search for the k largest goes on until what is open is this many times smaller: large paths hide in
# smaller subtotals of both signs. In SmolLM2, 2 finds what ten times the work finds.
MARGIN = 2.0


class Frontier:
    """The partial paths left open, the largest |subtotal| first; of siblings only the next is in the heap."""

    def __init__(self) -> None:
        self._heap: list[
            tuple[float, int, int, Suffix, list[Place], Float[np.ndarray, " part"]]
        ] = []
        self._ties = itertools.count()
        self.total = self.absolute = 0.0

    @property
    def largest(self) -> float | None:
        """The largest |subtotal|; None when nothing is open."""
        return -self._heap[0][0] if self._heap else None

    def push(
        self, suffix: Suffix, places: list[Place], subtotals: Float[np.ndarray, " part"]
    ) -> None:
        """All components that enter a partial path, with their subtotals."""
        order = np.argsort(-np.abs(subtotals), kind="stable")
        self.total += float(subtotals.sum())
        self.absolute += float(np.abs(subtotals).sum())
        self._wait(0, suffix, [places[index] for index in order], subtotals[order])

    def __iter__(self) -> Iterator[tuple[Suffix, float]]:
        """Takes partial paths out, largest first, with their subtotals."""
        while self._heap:
            _, _, rank, suffix, places, subtotals = heapq.heappop(self._heap)
            self._wait(rank + 1, suffix, places, subtotals)
            self.total -= float(subtotals[rank])
            self.absolute -= abs(float(subtotals[rank]))
            yield (places[rank], *suffix), float(subtotals[rank])

    def _wait(
        self, rank: int, suffix: Suffix, places: list[Place], subtotals: Float[np.ndarray, " part"]
    ) -> None:
        if rank < len(places):
            size = -abs(float(subtotals[rank]))
            heapq.heappush(self._heap, (size, next(self._ties), rank, suffix, places, subtotals))


class Books:
    """What was found and what is open: the k best paths, and sums over all."""

    def __init__(self, suffixes: Suffixes, k: int) -> None:
        self.suffixes, self.k, self.frontier = suffixes, k, Frontier()
        self.best: list[tuple[float, int, float, Part, Suffix]] = []
        self.n_expanded = 0
        self.found = self.found_absolute = 0.0
        self._ties = itertools.count()

    @property
    def smallest(self) -> float:
        """The size of the k-th best path; 0 as long as there are fewer."""
        return self.best[0][0] if len(self.best) == self.k else 0.0

    def expand(self, chosen: list[Suffix]) -> None:
        """Take partial paths apart."""
        suffixes, n_sources = self.suffixes, len(self.suffixes.sources)
        for suffix, values in zip(chosen, suffixes.entering(chosen), strict=True):
            entering = np.flatnonzero(suffixes.enters(suffix))
            starting, going = entering[entering < n_sources], entering[entering >= n_sources]
            for index in starting:
                self._find(suffixes.writers[index], suffix, float(values[index]))
            places = [suffixes.places[index - n_sources] for index in going]
            self.frontier.push(suffix, places, values[going])
        self.n_expanded += len(chosen)

    def _find(self, source: Part, suffix: Suffix, value: float) -> None:
        self.found += value
        self.found_absolute += abs(value)
        if len(self.best) < self.k or abs(value) > self.smallest:
            entry = (abs(value), -next(self._ties), value, source, suffix)
            push = heapq.heappush if len(self.best) < self.k else heapq.heappushpop
            push(self.best, entry)


class Ends(NamedTuple):
    """When to stop, and what to list then."""

    k: int
    threshold: float
    coverage: float | None
    whole: float

    def reached(self, books: Books) -> str:
        """Why the search may end now; "" if it may not."""
        largest = books.frontier.largest or 0.0
        if len(books.best) == self.k and books.smallest >= MARGIN * largest:
            return "count"
        if largest < self.threshold:
            return "threshold"
        listed = sum(size for size, *_ in books.best)
        return "coverage" if self._covers(books, listed) else ""

    def chosen(self, books: Books) -> list[tuple[float, Part, Suffix]]:
        """The paths to list, largest first: as few as will do where a coverage is asked for."""
        best = sorted(books.best, reverse=True)
        best = [entry for entry in best if entry[0] >= self.threshold]
        sizes = np.cumsum([0.0, *(entry[0] for entry in best)]).tolist()
        enough = [count for count, size in enumerate(sizes) if self._covers(books, size)]
        return [entry[2:] for entry in best[: enough[0] if enough else None]]

    def _covers(self, books: Books, listed: float) -> bool:
        if self.coverage is None:
            return False
        rest = books.frontier.absolute + books.found_absolute - listed
        return rest <= (1 - self.coverage) * self.whole


def counts(suffixes: Suffixes) -> tuple[int, int]:
    """How many partial paths there are, and how many paths, from how many read each level."""
    steps = suffixes.frozen.steps
    reading = [0] * len(steps) + [1]
    for index in reversed(range(len(steps))):
        reading[steps[index].reads] += steps[index].sublayer.n_parts * sum(reading[index + 1 :])
    n_paths = sum(sum(reading[level:]) for level in suffixes.sources.values())
    return sum(reading), n_paths
