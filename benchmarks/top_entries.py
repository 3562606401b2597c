"""The largest entries of full circuits over the vocabulary against a blocked product with a running top k.

    python -m benchmarks.top_entries

One head of each layer of SmolLM2 (30 of its 270), k = 100, OV and QK; then OV of all heads. The peer is as
fast as blocks of a float32 product can be made: one buffer that stays in cache, and a block whose maximum is
below the k-th best so far is dropped after one pass.
"""

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

import workbench
from benchmarks.measure import report
from workbench.circuits.top_entries import TopEntries, top_entries
from workbench.errors import WorkbenchError
from workbench.models.transformer import Transformer

T = TypeVar("T")
K = 100
# Of blocks from 256 x 512 to 4096 x 4096 and of whole rows, these are the peer's fastest.
N_ROWS, N_COLUMNS = 512, 1024


def blocked_top_entries(A: Tensor, B: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and flat positions of the k largest entries: every entry is multiplied out."""
    values, places = torch.empty(0), torch.empty(0, dtype=torch.int64)
    floor, buffer = -math.inf, torch.empty(N_ROWS * N_COLUMNS)
    for row in range(0, len(A), N_ROWS):
        for column in range(0, len(B), N_COLUMNS):
            a, b = A[row : row + N_ROWS], B[column : column + N_COLUMNS]
            block = torch.mm(a, b.T, out=buffer[: len(a) * len(b)].view(len(a), len(b)))
            if block.amax() <= floor:
                continue
            rows, columns = (block > floor).nonzero(as_tuple=True)
            values = torch.cat([values, block[rows, columns]])
            places = torch.cat([places, (rows + row) * len(B) + columns + column])
            if len(values) > k:
                values, order = values.topk(k)
                places, floor = places[order], float(values[-1])
    return values, places


class Circuit(NamedTuple):
    """A head's two factors."""

    name: str
    A: Tensor
    B: Tensor


def circuits(model: Transformer, heads: Iterable[tuple[int, int]], kinds: str) -> Iterator[Circuit]:
    """OV and QK (keys where the query is) of heads, with the norms' gains folded in."""
    unembed = (model.W_U.T * model.ln_final.w).contiguous()
    for layer, head in heads:
        block = model.blocks[layer]
        attn, embed = block.attn, model.W_E * block.ln1.w
        shared = head * len(attn.W_V) // len(attn.W_Q)
        if "OV" in kinds:
            yield Circuit(
                f"OV {layer}.{head}", embed @ attn.W_V[shared], unembed @ attn.W_O[head].T
            )
        if "QK" in kinds:
            yield Circuit(f"QK {layer}.{head}", embed @ attn.W_Q[head], embed @ attn.W_K[shared])


class Outcome(NamedTuple):
    """One circuit: seconds of both sides, how far values are apart, how many entries are the same."""

    ours: float
    peer: float
    apart: float
    n_same: int
    screened: float


def compare(circuit: Circuit) -> Outcome:
    """Ours before and after the peer, so that both meet the same machine."""
    before, found = timed(lambda: top_entries(circuit.A, circuit.B, K))
    peer, (values, places) = timed(lambda: blocked_top_entries(circuit.A, circuit.B, K))
    after, _ = timed(lambda: top_entries(circuit.A, circuit.B, K))
    exact = torch.from_numpy(found.values)
    apart = float(((values.double() - exact) / exact).abs().max())
    own = set((found.rows * len(circuit.B) + found.columns).tolist())
    n_same = len(own & set(places.tolist()))
    return Outcome((before + after) / 2, peer, apart, n_same, found.n_screened / found.n_total)


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds of CPU time, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def extra_memory(work: Callable[[], TopEntries]) -> float | None:
    """Megabytes by which a call raises the process's resident memory at its peak; None but on Linux."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists() or not clear.exists():
        return None
    # Memory that was freed but not given back would be used again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    clear.write_text("5")  # sets the peak to what is resident now

    def peak() -> int:
        return next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))

    before = peak()
    work()
    return (peak() - before) / 1024


def main() -> None:
    """Print ratios (median, least, most), agreement, memory, and the time of a whole model."""
    try:
        model = workbench.load("smollm2")
    except WorkbenchError as error:
        print(f"left out: {error}")
        return
    torch.set_num_threads(1)
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    sample = [(layer, layer % n_heads) for layer in range(n_layers)]
    with torch.no_grad():
        first = next(circuits(model, sample, "OV"))
        memory = extra_memory(lambda: top_entries(first.A, first.B, K))
        report("300", "top entries: peak extra resident memory, MB", memory and round(memory))
        for kind in ("OV", "QK"):
            summarise(kind, [show(circuit) for circuit in circuits(model, sample, kind)])
        heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
        sweep = sum(
            timed(lambda c=circuit: top_entries(c.A, c.B, K))[0]
            for circuit in circuits(model, heads, "OV")
        )
        report("-", f"OV of all {len(heads)} heads, seconds", f"{sweep:.1f}")


def show(circuit: Circuit) -> Outcome:
    """Measure one circuit and print its line."""
    outcome = compare(circuit)
    print(
        f"  {circuit.name:<9} {outcome.peer / outcome.ours:6.1f}x   {outcome.ours * 1e3:6.0f} ms against "
        f"{outcome.peer * 1e3:6.0f}   multiplied {outcome.screened:7.3%}   "
        f"same entries {outcome.n_same}, values within {outcome.apart:.0e}",
        flush=True,
    )
    return outcome


def summarise(kind: str, outcomes: list[Outcome]) -> None:
    """Print what holds over all circuits of a kind."""
    ratios = [outcome.peer / outcome.ours for outcome in outcomes]
    spread = f"{statistics.median(ratios):.1f}x  (least {min(ratios):.1f}, most {max(ratios):.1f})"
    report("20x", f"top {K} of {kind} over {len(ratios)} heads, faster than blocks by", spread)
    report(
        "1e-5",
        f"top {K} of {kind}: values apart, relative, at most",
        f"{max(o.apart for o in outcomes):.0e}",
    )
    report(
        str(K), f"top {K} of {kind}: entries the same, at least", min(o.n_same for o in outcomes)
    )


if __name__ == "__main__":
    main()
