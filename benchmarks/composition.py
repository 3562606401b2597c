"""Composition of all pairs of heads: time against TransformerLens on a random model, and SmolLM2's own bill.

Run      python -m benchmarks.composition        SmolLM2 needs the smollm2 model; about a minute
Model    72 random heads: 6 layers of 12, d_model 768, d_head 64
Peer     `transformer_lens.utilities.composition_scores` on FactoredMatrix of all heads, once for Q, K and V.
         It scores every ordered pair, twice those that can compose; SmolLM2's 270 heads would need 1.2 GB
         for each of its intermediate products, several at a time.
Goal     faster than the peer with the same scores; SmolLM2 in seconds, with less than 500 MB on top
"""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import composition_scores as peer_scores

from benchmarks.measure import interleaved, report
from workbench import load
from workbench.composition.scores import composition_scores, pair_scores
from workbench.models import list_models
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.weights import EffectiveWeights, effective_weights

SHAPE = {"order": "s" * 6, "d_model": 768, "n_heads": 12, "d_vocab": 100, "n_ctx": 16}


def main() -> None:
    """Print the ratio, the largest difference, and SmolLM2's seconds and memory."""
    torch.set_num_threads(1)
    weights = effective_weights(Transformer(TransformerConfig(**SHAPE), seed=0))
    against_peer(weights)
    if any(info.name == "smollm2" and info.available for info in list_models()):
        smollm2(effective_weights(load("smollm2")))
    else:
        print("smollm2: not installed, skipped")


def against_peer(weights: EffectiveWeights) -> None:
    """Q, K and V scores of all pairs, ours and the peer's, in turns."""
    heads = [head for _, head in weights.each_head()]

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(head, name) for head in heads])

    OV = FactoredMatrix(stacked("W_V"), stacked("W_O"))
    QK = FactoredMatrix(stacked("W_Q"), stacked("W_K").mT)
    reads = {"Q": QK, "K": QK.T, "V": OV}
    ours = pair_scores(weights)
    apart = max(
        np.nanmax(np.abs(ours[through] - peer_scores(OV, read).numpy()))
        for through, read in reads.items()
    )
    ratio = interleaved(
        lambda: pair_scores(weights),
        lambda: [peer_scores(OV, read) for read in reads.values()],
        rounds=7,
        tries=1,
    )
    report("< 1x", f"{len(heads)} heads, Q, K and V: ours / TransformerLens", ratio)
    report("<= 1e-5", "largest difference", f"{apart:.1e}")


def smollm2(weights: EffectiveWeights) -> None:
    """Seconds and memory of the whole result: scores, chance, matching."""
    _ = weights.W_U  # part of the model, folded
    before = resident("VmRSS")
    # Forget the highest point so far; only Linux counts it.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    started, cpu = time.perf_counter(), time.process_time()
    scores = composition_scores(weights)
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    n_pairs = int(np.isfinite(scores.scores["K"]).sum())
    report("seconds", f"smollm2, {n_pairs:,} pairs", f"{took:.1f} s, {cpu:.1f} s of one core")
    report("<= 500 MB", "smollm2: memory on top", f"{resident('VmHWM') - before:.0f} MB")


def resident(field: str) -> float:
    """Megabytes held now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1e3


if __name__ == "__main__":
    main()
