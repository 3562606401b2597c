"""Fair ratios: both sides in one process, taking turns, so that whatever else the machine does hits both."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Ratio(NamedTuple):
    """Median over rounds of ours / peer, with the quartiles, and the peer's median in milliseconds."""

    median: float
    low: float
    high: float
    peer_ms: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x  (quartiles {self.low:.2f} to {self.high:.2f}; peer {self.peer_ms:.1f} ms)"


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int = 41, tries: int = 3
) -> Ratio:
    """Time `ours` against `peer`, alternating which goes first.

    A round compares the fastest of a few tries of each side, in CPU time: what else the machine does can
    only ever add to a time, never take from it.
    """
    for warm in (ours, peer, ours, peer):
        warm()
    ratios, peers = [], []
    for turn in range(rounds):
        taken = {}
        for side in (ours, peer) if turn % 2 else (peer, ours):
            taken[side] = min(_cpu_seconds(side) for _ in range(tries))
        ratios.append(taken[ours] / taken[peer])
        peers.append(taken[peer] * 1e3)
    low, median, high = statistics.quantiles(ratios, n=4)
    return Ratio(median, low, high, statistics.median(peers))


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def report(goal: str, what: str, measured: object) -> None:
    """Print one line: what was measured, the result, the goal."""
    print(f"{what:<58} {measured!s:<52} goal {goal}", flush=True)
