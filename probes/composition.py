"""How much of what each head writes do later heads read, through their queries, keys and values?

    score = ‖W_OV[writer] W_read‖ / (‖W_OV[writer]‖ ‖W_read‖)            (`workbench.composition.scores`)

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".) Null: the two heads as they are, one
turned against the other by a random rotation Q of the stream. With a and b the squared singular values of both,
each summing to 1, score² = Σ_ij a_i b_j Q_ij², whose moments are known:

    mean = 1/d,    variance = 2 (Σa² - 1/d)(Σb² - 1/d) / ((d - 1)(d + 2)),    third cumulant ≈ 8 Σa³ Σb³ / d³

(Collins and Śniady 2006, "Integration with respect to the Haar measure"). p is two-sided: above, from the
shifted gamma distribution with these three (Pearson's type III; Imhof 1961, "Computing the distribution of
quadratic forms"), below, from the normal distribution with the first two, whose tail is longer. Both err
towards large p, and no p is as coarse as a number of draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.weights import EffectiveWeights

Matrix = Float[np.ndarray, "writer reader"]


@dataclass(frozen=True)
class CompositionConfig:
    """At which distance queries meet keys, and of how many pairs matching is computed.

    Args:
        offset: query minus key position; matters with rotary positions only.
        n_matched: strongest pairs of each input whose matching is given.
        n_null: random heads behind the spread of matching.
    """

    offset: int = 0
    n_matched: int = 20
    n_null: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("offset", self.offset, 0, 1_000_000)
        check_whole("n_matched", self.n_matched, 0, 100_000)
        check_whole("n_null", self.n_null, 2, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class Composition(Probe):
    """Q-, K- and V-composition of all pairs."""

    name = "composition"
    title = "Pairs of heads: composition"
    version = 1
    question = "Which later heads read what which earlier heads write, through Q, K or V?"
    method = (
        "`score = ‖W_OV W_read‖ / (‖W_OV‖ ‖W_read‖)` for every earlier head (item) and later head, W_read "
        "being W_QK, W_QKᵀ or W_OV of the reader. Null: the same two heads, one turned against the other by a "
        "random rotation of the stream; the score's square then has known mean 1/d_model, variance and "
        "skewness, and p, two-sided, is from the gamma distribution with these (below the mean, the normal "
        "one). For the strongest pairs also the matching Σ Re λ / Σ |λ| of their token circuit: 1 if it is "
        "the same token that is read. Source: Elhage et al. 2021, *A Mathematical Framework for Transformer "
        "Circuits*; moments: Collins & Śniady 2006."
    )
    limits = (
        "A large score says that something is read, not that it matters or that it is a token: ask for a "
        "large matching too. Trained heads share the stream's main directions, so many pairs differ from "
        "chance; compare sizes. Matching has no p: its pairs were chosen by their score."
    )
    needs = (
        "Weights alone: no sites, no data; two or more layers, heads in one before the other, norms "
        "not after the sums."
    )
    kind = "weights"
    Config = CompositionConfig

    def refuses(self, facts: ModelFacts) -> str:
        """No two layers of heads, or norms after the sum."""
        if not facts.has_attention or facts.n_layers < 2:
            return f"no head is in a later layer than another: {facts.described}"
        if facts.norm_position == "post":
            return f"norms after each sum keep weights of two heads from multiplying: {facts.described}"
        return ""

    def cost(self, facts: ModelFacts, data: DataFacts, config: CompositionConfig) -> Cost:
        """Products of all pairs, spectra of all heads, rows of the table."""
        heads, d_model, size = facts.n_layers * facts.n_heads, facts.d_model, facts.d_head
        n_pairs = 3 * (heads**2 - heads * facts.n_heads) / 2
        products = n_pairs * d_model**2 * 0.6 / 1e10
        # Readers are made anew for every block of writers.
        triangle = d_model**2 * 9 / 16 * 4
        held = heads * triangle / 2.5e8
        blocks = max(1.0, held)
        made = (1 + 3 * blocks) * heads * d_model**2 * (0.6 * size / 1e10 + 1e-9)
        spectra = 8 * heads * (d_model * size**2 * 1e-10 + size**3 * 3e-9 + 1e-4)
        matched = (
            3 * (config.n_matched + config.n_null) * (size**3 * 6e-9 + d_model**2 * size * 2e-10)
        )
        core = 2 * 2 * facts.d_vocab * d_model**2 / 3e10 if config.n_matched else 0
        seconds = 0.2 + products + made + spectra + matched + core + n_pairs * 2e-5
        return Cost(seconds, 5e8 * min(1.0, held) + n_pairs * 2500 + 1e8)

    def run(
        self, model: Any, data: ProbeData, config: CompositionConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each input and pair: layer and head are the reader's, item is the writer."""
        from workbench.composition.scores import pair_scores
        from workbench.errors import UnsupportedError
        from workbench.weights import effective_weights

        weights = effective_weights(model)
        if len({head.layer for head in weights.heads}) < 2:
            raise UnsupportedError(f"{model.name} has no head in a later layer than another")
        offset = config.offset if model.cfg.positions == "rotary" else 0
        scores = pair_scores(
            weights, offset, lambda done, of: progress(0.6 * done / of, "pairs of heads")
        )
        spectra = _spectra(weights, offset)
        rows: list[dict[str, Any]] = []
        for index, (through, score) in enumerate(scores.items()):
            progress(0.6 + 0.1 * index, f"chance of {through}")
            null = turned_null(spectra["writer"], spectra[through], model.cfg.d_model)
            rows += _rows(weights, through, score, null, config.seed)
        progress(0.9, "matching")
        rows += _matching(weights, scores, offset, config)
        return findings_table(rows)


class TurnedNull(NamedTuple):
    """Moments of score² for every pair: mean and standard deviation, and its skewness."""

    mean: float
    std: Matrix
    skew: Matrix

    def p(self, score: Matrix) -> Matrix:
        """Two-sided p of scores; 1 where the null is a single number.

        Above, Pearson's type III. Below, where it ends too early, the normal distribution, whose tail is the
        longer as the skewness is positive.
        """
        square, spread = np.nan_to_num(score) ** 2, np.maximum(self.std, 1e-30)
        skew = np.maximum(self.skew, 1e-6)
        shape, z = 4 / skew**2, (square - self.mean) / spread
        above = stats.gamma.sf(shape + z * np.sqrt(shape), shape)
        below = stats.norm.cdf(z)
        # Of a flat writer and reader that fill the stream, all rotations score alike.
        is_open = self.std > 1e-9 * self.mean
        found: Matrix = np.where(is_open, np.minimum(1.0, 2 * np.minimum(above, below)), 1.0)
        return found

    def of_score(self) -> tuple[Matrix, Matrix]:
        """Mean and standard deviation of the score itself: those of the root of a gamma of score²'s moments."""
        from scipy.special import gammaln

        shape = (self.mean / np.maximum(self.std, 1e-30)) ** 2
        shape = np.minimum(shape, 1e8)
        mean = np.sqrt(self.mean / shape) * np.exp(gammaln(shape + 0.5) - gammaln(shape))
        return mean, np.sqrt(np.maximum(self.mean - mean**2, 0))


def turned_null(
    written: Float[np.ndarray, "writer rank"], read: Float[np.ndarray, "reader rank_read"], d: int
) -> TurnedNull:
    """Chance of every pair, from squared singular values that sum to 1 in every row."""

    def power(of: Float[np.ndarray, "head rank"], k: int) -> Float[np.ndarray, " head"]:
        return np.asarray((of**k).sum(-1))

    spread = np.outer(
        np.maximum(power(written, 2) - 1 / d, 0), np.maximum(power(read, 2) - 1 / d, 0)
    )
    variance = 2 * spread / ((d - 1) * (d + 2))
    # As of independent normal entries, and shrunk as the variance is by their being a rotation.
    free = np.outer(power(written, 2), power(read, 2)) * 2 / d**2
    cumulant = 8 * np.outer(power(written, 3), power(read, 3)) / d**3 * (variance / free) ** 1.5
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = np.nan_to_num(cumulant / variance**1.5)
    return TurnedNull(1 / d, np.sqrt(variance), skew)


def _spectra(weights: "EffectiveWeights", offset: int) -> dict[str, Float[np.ndarray, "head rank"]]:
    """Squared singular values of what each head writes and reads, over their sum."""
    from workbench.composition.matching import INPUTS, Factors, factors

    found: dict[str, list[Float[np.ndarray, " rank"]]] = {role: [] for role in ("writer", *INPUTS)}
    for _, head in weights.each_head():
        found["writer"].append(_energies(Factors(head.W_O.mT, head.W_V)))
        for through in ("K", "V"):
            found[through].append(_energies(factors(head, through, offset)))  # type: ignore[arg-type]
        # Queries read the transpose of what keys read: the same singular values.
        found["Q"].append(found["K"][-1])
    width = max(len(values) for values in found["writer"])
    return {
        role: np.stack([np.pad(values, (0, width - len(values))) for values in of])
        for role, of in found.items()
    }


def _energies(sides: "tuple[Tensor, Tensor]") -> Float[np.ndarray, " rank"]:
    import torch

    R_enter, R_leave = (torch.linalg.qr(side.double().cpu(), mode="r").R for side in sides)
    energy = torch.linalg.svdvals(R_enter @ R_leave.mT).square()
    total = energy.sum()
    shares: Float[np.ndarray, " rank"] = (energy / total if total else energy).numpy()
    return shares


def _rows(
    weights: "EffectiveWeights", through: str, score: Matrix, null: TurnedNull, seed: int
) -> Iterator[dict[str, Any]]:
    heads, p, (mean, std) = weights.heads, null.p(score), null.of_score()
    # A head of zeros has no score.
    for writer, reader in zip(*np.nonzero(np.isfinite(score)), strict=True):
        head = heads[reader]
        yield {
            "measure": f"{through}-composition",
            "layer": head.layer,
            "head": head.head,
            "item": str(heads[writer]),
            "value": score[writer, reader],
            "null_mean": mean[writer, reader],
            "null_std": std[writer, reader],
            "p": p[writer, reader],
            "seed": seed,
            "unit": "share of norm",
        }


def _matching(
    weights: "EffectiveWeights", scores: Any, offset: int, config: CompositionConfig
) -> Iterator[dict[str, Any]]:
    from workbench.composition.matching import Matching, Pair, can_match_values

    shared, heads = Matching(weights), weights.heads
    size = next(weights.each_head())[1].W_V.shape[1]
    for through, score in scores.items() if config.n_matched else ():
        if through == "V" and not can_match_values(weights):
            continue
        n = min(config.n_matched, int(np.isfinite(score).sum()))
        cells = np.unravel_index(np.argsort(-score, axis=None)[:n], score.shape)
        pairs = [Pair(heads[w], heads[r]) for w, r in zip(*cells, strict=True)]
        drawn = shared.null(through, size, config.n_null, config.seed)
        for pair, value in zip(pairs, shared.scores(pairs, through, offset), strict=True):
            yield {
                "measure": f"{through}-matching",
                "layer": pair.reader.layer,
                "head": pair.reader.head,
                "item": str(pair.writer),
                "value": value,
                "null_mean": drawn.mean(),
                "null_std": drawn.std(ddof=1),
                "seed": config.seed,
                "unit": "share of |eigenvalues|",
            }


PROBE = Composition()
