"""Copying scores of every head of SmolLM2, against TransformerLens' FactoredMatrix on the same folded weights.

Run      python -m benchmarks.circuits           needs the smollm2 model; about two minutes
Peer     `(W_E @ FactoredMatrix(W_V, W_O) @ W_U).eigenvalues` for one head after the other
Ours     one vocabulary product for all heads, then a d_head-wide product for each
Goal     ten times faster, the same scores to 1e-3 (both in float32, on one thread)
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformer_lens import FactoredMatrix

from benchmarks.measure import report
from workbench import load
from workbench.circuits.copying import copying_scores, diagonal_test, eigen_cloud
from workbench.circuits.full import ov_circuit, qk_circuit
from workbench.circuits.positions import score_by_offset
from workbench.sites import Head
from workbench.weights import EffectiveWeights, effective_weights

HEAD = Head(5, 3)


def main() -> None:
    """Print the sweep, and what each view of one head takes."""
    torch.set_num_threads(1)
    weights = effective_weights(load("smollm2"))
    sweep(weights)
    one_head(weights)


def sweep(weights: EffectiveWeights) -> None:
    """All heads: CPU seconds of both sides, ours before and after the peer, and the largest difference."""
    scores_only = {"n_null": 2, "n_tokens": 0}
    before, scores = cpu_seconds(lambda: copying_scores(weights, **scores_only))
    peer, theirs = cpu_seconds(lambda: peer_scores(weights))
    after, _ = cpu_seconds(lambda: copying_scores(weights, **scores_only))
    ours, n_heads = max(before, after), len(theirs)
    report(
        ">= 10x",
        f"copying scores of {n_heads} heads",
        f"{ours:.1f} s, peer {peer:.1f} s: {peer / ours:.0f}x",
    )
    difference = abs(scores.table()["score"].to_numpy() - torch.tensor(theirs).numpy()).max()
    report("<= 1e-3", "largest difference to the peer's score", f"{difference:.1e}")
    with_null, _ = cpu_seconds(lambda: copying_scores(weights, n_tokens=0))
    report("-", "the same with 100 random heads", f"{with_null:.1f} s")


def peer_scores(weights: EffectiveWeights) -> list[float]:
    """Σ Re λ / Σ |λ| of each head, from TransformerLens."""
    W_U = weights.W_U - weights.W_U.mean(1, keepdim=True)
    scores = []
    for _, head in weights.each_head():
        values = (weights.W_E @ FactoredMatrix(head.W_V, head.W_O) @ W_U).eigenvalues
        scores.append(float(values.real.sum() / values.abs().sum()))
    return scores


def one_head(weights: EffectiveWeights) -> None:
    """What a page asks of one head."""
    circuit = ov_circuit(weights, HEAD)
    tokens = torch.arange(0, circuit.shape[0], circuit.shape[0] // 256)[:256]
    views: dict[str, Callable[[], Any]] = {
        "OV circuit": lambda: ov_circuit(weights, HEAD),
        "QK circuit at an offset": lambda: qk_circuit(weights, HEAD, offset=3),
        "one row": lambda: circuit.row(7),
        "eigenvalues": circuit.eigenvalues,
        "eigenvalues with 20 random heads": lambda: eigen_cloud(circuit, weights),
        "ten singular directions": lambda: circuit.singular(10),
        "diagonal test on 256 tokens": lambda: diagonal_test(circuit, tokens),
        "scores at 64 offsets": lambda: score_by_offset(weights, HEAD),
    }
    for name, view in views.items():
        report(
            "<= 1 s", f"head {HEAD}: {name}", f"{min(cpu_seconds(view)[0] for _ in range(3)):.3f} s"
        )


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time and the result: what else the machine does does not count."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
