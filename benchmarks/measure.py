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
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int = 41
) -> Ratio:
    """Time `ours` against `peer`, alternating which goes first; CPU time, so that waiting does not count."""
    for warm in (ours, peer, ours, peer):
        warm()
    ratios, peers = [], []
    for turn in range(rounds):
        taken = {}
        for side in (ours, peer) if turn % 2 else (peer, ours):
            start = time.process_time()
            side()
            taken[side] = time.process_time() - start
        ratios.append(taken[ours] / taken[peer])
        peers.append(taken[peer] * 1e3)
    low, median, high = statistics.quantiles(ratios, n=4)
    return Ratio(median, low, high, statistics.median(peers))


def report(goal: str, what: str, measured: object) -> None:
    """Print one line: what was measured, the result, the goal."""
    print(f"{what:<58} {measured!s:<52} goal {goal}", flush=True)
