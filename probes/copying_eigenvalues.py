"""Whether heads copy what they attend to, and attend to what they are: eigenvalues of their token circuits.

    score = Σ Re λ / Σ |λ|     over the eigenvalues λ of  W_E W_V W_O W_U        (OV: copying)
                                                      or  W_E W_Q W_K.T W_E.T    (QK: matching)

(`workbench.circuits.copying`; Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".) Null:
heads of random Gaussian factors of the same width between the model's own embedding and unembedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts

if TYPE_CHECKING:
    from workbench.circuits.copying import Kind

MEASURES = {"OV": "copying", "QK": "matching"}


@dataclass(frozen=True)
class CopyingConfig:
    """How many random heads there are, and of which models the diagonal is looked at.

    Args:
        n_null: random heads behind every p.
        n_tokens: tokens drawn for the share that is in the top of its own row; 0 leaves it out.
        largest_vocab: vocabulary beyond which it is left out, since it takes whole rows of the circuit.
    """

    n_null: int = 999
    n_tokens: int = 256
    largest_vocab: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_null", self.n_null, 2, 1_000_000)
        check_whole("n_tokens", self.n_tokens, 0, 1_000_000)
        check_whole("largest_vocab", self.largest_vocab, 0, 10_000_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class CopyingEigenvalues(Probe):
    """Copying and matching scores of every head."""

    name = "copying-eigenvalues"
    title = "Heads: copying and matching"
    version = 1
    question = "Which heads raise the tokens they attend to, and which attend to copies of their own token?"
    method = (
        "`score = Σ Re λ / Σ |λ|` over the eigenvalues λ of the full OV circuit `W_E W_V W_O W_U` (`copying`) "
        "and the full QK circuit `W_E W_Q W_Kᵀ W_Eᵀ` (`matching`, at offset 0), in the basis of tokens, "
        "relative to the mean output and the mean key: 1 copies, −1 erases. Null: heads of random Gaussian "
        "factors of the same width between the same embedding and unembedding; p is the rank among them, "
        "two-sided. Beside it, for small vocabularies, the share of tokens among the largest five of their "
        "own row, with Wilson's interval over the tokens drawn and its chance level as null mean. Source: "
        "Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*."
    )
    limits = (
        "Weights say what a head would do with a token in the stream; deeper layers read more than tokens. "
        "A head that copies need not be one that matters: look at what it attends to. With norms, circuits are "
        "exact up to each position's scale."
    )
    needs = (
        "Weights alone: no sites, no data; transformers and encoders with attention whose norms do "
        "not follow the sums."
    )
    kind = "weights"
    Config = CopyingConfig
    draws = "n_null"
    # Twice the rank from the nearer end.
    sides = 2

    def refuses(self, facts: ModelFacts) -> str:
        """No heads, or norms after the sum."""
        return no_circuits(facts)

    def cost(self, facts: ModelFacts, data: DataFacts, config: CopyingConfig) -> Cost:
        """Eigenvalues of every head and random head, and rows for the diagonal."""
        heads, size = facts.n_layers * facts.n_heads, facts.d_head
        eigen = size**3 * 6e-9 + 1e-4
        product = 4 * facts.d_model**2 * size / 2.5e10
        core = 2 * facts.d_vocab * facts.d_model**2 / 1e10
        rows = _n_tokens(facts, config) * facts.d_vocab * size * 2e-10 + 1e-3
        seconds = (config.n_null + heads) * (eigen + product) + core + heads * rows
        held = config.n_null * size**2 * 16 + 4 * facts.d_vocab * facts.d_model * 6
        return Cost(0.2 + 2 * seconds, held + 5e7)

    def run(
        self, model: Any, data: ProbeData, config: CopyingConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """For each head and circuit the score, and the diagonal where it is looked at."""
        from probes.facts import facts_of
        from workbench.circuits.copying import copying_scores
        from workbench.weights import effective_weights

        facts, weights = facts_of(model), effective_weights(model)
        kinds: tuple[Kind, ...] = ("OV", "QK") if facts.d_out == facts.d_vocab else ("QK",)
        rows: list[dict[str, Any]] = []
        for index, kind in enumerate(kinds):
            progress(index / len(kinds), f"{kind} circuits")
            found = copying_scores(
                weights,
                kind=kind,
                n_null=config.n_null,
                n_tokens=_n_tokens(facts, config),
                seed=config.seed,
            )
            rows += _rows(found.table(), MEASURES[kind], config.seed)
        progress(1.0, "done")
        return findings_table(rows)


def no_circuits(facts: ModelFacts) -> str:
    """Why no weights lead from tokens through a head."""
    if not facts.has_attention:
        return f"it has no heads: {facts.described}"
    if facts.norm_position == "post":
        return f"norms after each sum keep weights from multiplying: {facts.described}"
    return ""


def _n_tokens(facts: ModelFacts, config: CopyingConfig) -> int:
    is_small = facts.d_vocab <= config.largest_vocab
    return min(config.n_tokens, facts.d_vocab) if is_small else 0


def two_sided(less: int | float, n_null: int) -> float:
    """p from how many of the null are less: twice the smaller rank, the value counted among them."""
    return float(min(1.0, 2 * min(1 + less, 1 + n_null - less) / (1 + n_null)))


def _rows(table: pd.DataFrame, measure: str, seed: int) -> Iterator[dict[str, Any]]:
    for row in table.itertuples():
        place = {"layer": row.layer, "head": row.head, "seed": seed}
        yield {
            "measure": measure,
            "value": row.score,
            "null_mean": row.null_mean,
            "null_std": row.null_std,
            "p": two_sided(round(row.percentile * row.n_null / 100), row.n_null),
            "unit": "share of |eigenvalues|",
            **place,
        }
        if np.isfinite(getattr(row, "diagonal_top", np.nan)):
            yield {
                "measure": f"{measure}, own token in top {row.top}",
                "value": row.diagonal_top,
                "null_mean": row.chance,
                "low": row.low,
                "high": row.high,
                "n": row.n_tokens,
                "unit": "share of tokens",
                **place,
            }


PROBE = CopyingEigenvalues()
