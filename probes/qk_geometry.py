"""The shape of every head's QK and OV circuit, against random circuits of the same size.

    symmetric share  ‖S‖² / ‖W‖², S = (W + W.T) / 2        positive mass  Σ λ⁺ / Σ |λ| of S
    ranks            how many directions hold the energy

(`workbench.circuits.geometry`.) How many eigenvalues are positive is left out: it is fixed by the shapes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.copying_eigenvalues import two_sided
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts

# Whole numbers tie with the null, so that their rank among it is no p.
COUNTED = "rank (90 %)"


@dataclass(frozen=True)
class GeometryConfig:
    """How many random circuits there are, and at which distance queries meet keys.

    Args:
        offset: query minus key position; matters with rotary positions only.
    """

    n_null: int = 499
    offset: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_null", self.n_null, 2, 1_000_000)
        check_whole("offset", self.offset, 0, 1_000_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class QKGeometry(Probe):
    """Symmetry, eigenvalue mass and effective rank."""

    name = "qk-geometry"
    title = "Heads: geometry of their circuits"
    version = 1
    question = "Are the heads' circuits symmetric, positive or of low rank, more than random ones?"
    method = (
        "Of W = W_QK and W_OV in the residual stream, from the factors: `symmetric share = ‖S‖² / ‖W‖²` with "
        "`S = (W + Wᵀ) / 2`, `positive mass = Σ λ⁺ / Σ |λ|` over the eigenvalues of S, and effective ranks: "
        "participation `(Σe)² / Σe²` and exp of the entropy, over energies e, and how many singular values "
        "hold 90 %. Null: circuits of random Gaussian factors of the same shape; p is the rank among them, "
        "two-sided. Low rank of trained circuits is the rule: read the values. Symmetry: compare Saponati et "
        "al. 2025 (arXiv 2502.10927)."
    )
    limits = (
        "Directions of the stream, not tokens: what the embedding weighs little counts as much as what it "
        "weighs a lot. With rotary positions W_QK is that of one offset. The 90 % rank is a whole number and "
        "has no p."
    )
    needs = "Weights alone: no sites, no data; transformers and encoders with attention."
    kind = "weights"
    Config = GeometryConfig
    draws = "n_null"
    # Twice the rank from the nearer end.
    sides = 2

    def refuses(self, facts: ModelFacts) -> str:
        """No heads."""
        return "" if facts.has_attention else f"it has no heads: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: GeometryConfig) -> Cost:
        """Decompositions of every circuit and random circuit."""
        heads, size = facts.n_layers * facts.n_heads, facts.d_head
        one = facts.d_model * size**2 * 8e-10 + size**3 * 4e-9 + 1e-4
        seconds = (2 * heads + config.n_null) * one + heads * 2e-3
        layer = 8 * facts.n_heads * facts.d_model * size * 4
        return Cost(0.2 + seconds, 5e7 + layer + 32 * facts.d_model * size * 32)

    def run(
        self, model: Any, data: ProbeData, config: GeometryConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each head, circuit and measure; site is the circuit."""
        from workbench.circuits.geometry import qk_geometry
        from workbench.weights import effective_weights

        found = qk_geometry(
            effective_weights(model),
            offset=config.offset if model.cfg.positions == "rotary" else 0,
            n_null=config.n_null,
            seed=config.seed,
            progress=lambda done, of: progress(done / of, "heads"),
        )
        return findings_table(_rows(found.table(), config))


def _rows(table: pd.DataFrame, config: GeometryConfig) -> Iterator[dict[str, Any]]:
    for row in table.itertuples():
        less = row.percentile * config.n_null / 100
        has_p = row.measure != COUNTED and np.isfinite(less)
        yield {
            "measure": row.measure,
            "layer": row.layer,
            "head": row.head,
            "site": row.circuit,
            "value": row.value,
            "null_mean": row.null_mean,
            "null_std": row.null_std,
            "p": two_sided(less, config.n_null) if has_p else np.nan,
            "seed": config.seed,
            "unit": row.unit,
        }


PROBE = QKGeometry()
