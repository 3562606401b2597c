"""The largest entries of every head's token circuits, exactly.

    OV [source out]   W_E W_V W_O W_U         what attending to `source` adds to the logit of `out`
    QK [query key]    W_E W_Q R W_K.T W_E.T   the score of a query token at a key token

(`workbench.circuits.full`; found without forming the matrix by `workbench.circuits.top_entries`. Elhage et
al. 2021, "A Mathematical Framework for Transformer Circuits".) Null of the largest: the head's two factors
turned against each other by random rotations of its dimensions, which keeps what each token reads and writes
in length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.configs import check_choice, check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.copying_eigenvalues import no_circuits
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import beside_null

if TYPE_CHECKING:
    from workbench.circuits.full import Circuit

LARGEST = "largest entry"


@dataclass(frozen=True)
class EntriesConfig:
    """How many entries of how many heads, and which.

    Args:
        k: entries of each circuit.
        by: "largest", "smallest" (what is suppressed or avoided) or "size".
        most_heads: heads looked at, from the first layer on: there the stream holds the embedding itself.
        n_draws: rotations behind the p of the largest entry.
        largest_vocab: vocabulary beyond which there is no p, since every rotation takes the whole matrix.
    """

    k: int = 20
    by: str = "largest"
    most_heads: int = 36
    offset: int = 0
    n_draws: int = 99
    largest_vocab: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1, 10_000)
        check_choice("by", self.by, ("largest", "smallest", "size"))
        check_whole("most_heads", self.most_heads, 1, 100_000)
        check_whole("offset", self.offset, 0, 1_000_000)
        check_whole("n_draws", self.n_draws, 0, 100_000)
        check_whole("largest_vocab", self.largest_vocab, 0, 10_000_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class TopCircuitEntries(Probe):
    """Which pairs of tokens a head links most strongly."""

    name = "top-circuit-entries"
    title = "Heads: largest entries of their circuits"
    version = 2
    question = "Which tokens does each head link most strongly, when attending and when writing?"
    method = (
        "The k extreme entries of the full circuits `OV = W_E W_V W_O W_U` (source → out: logits) and `QK = "
        "W_E W_Q W_Kᵀ W_Eᵀ` (query ← key: score), each row relative to its mean, among all pairs of tokens "
        "and exactly: a bound rules out what need not be multiplied. Embeddings are divided by the scale that "
        "a norm would take from them alone. Null of the largest: the head's factors turned against each other "
        "by random rotations, tokens' lengths on both sides kept; p is the rank among them, two-sided. "
        "Source: Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*."
    )
    limits = (
        "Exact for what the embedding holds: the first layers come first, and only so many heads are looked "
        "at. Rare tokens with odd embeddings may lead. Lists are read, not tested; only the single largest "
        "entry has a p, and only where the vocabulary is small."
    )
    needs = (
        "Weights alone: no sites, no data; transformers and encoders with attention whose norms do "
        "not follow the sums."
    )
    kind = "weights"
    Config = EntriesConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No heads, or norms after the sum."""
        return no_circuits(facts)

    def cost(self, facts: ModelFacts, data: DataFacts, config: EntriesConfig) -> Cost:
        """Factors and search of each circuit, and whole matrices for the null."""
        circuits = 2 * min(config.most_heads, facts.n_layers * facts.n_heads)
        entries, size = float(facts.d_vocab) ** 2, facts.d_head
        made = 4 * facts.d_vocab * facts.d_model * size / 2.5e10
        search = 0.03 + entries * size * 1e-12
        draws = config.n_draws if facts.d_vocab <= config.largest_vocab else 0
        null = draws * entries * (2 * size / 7e10 + 4e-10)
        held = 4 * facts.d_vocab * (3 * facts.d_model + 12 * size) + (draws > 0) * entries * 8
        return Cost(0.2 + circuits * (made + search + null), held + 1e8)

    def run(
        self, model: Any, data: ProbeData, config: EntriesConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """For each head and circuit (site) the largest entry against chance, then the k entries."""
        from workbench.circuits.full import ov_circuit, qk_circuit
        from workbench.weights import effective_weights

        weights = effective_weights(model, normalise_tokens=True)
        heads = weights.heads[: config.most_heads]
        offset = config.offset if model.cfg.positions == "rotary" else 0
        rows: list[dict[str, Any]] = []
        for done, head in enumerate(heads):
            progress(done / len(heads), f"head {head}")
            circuits = [qk_circuit(weights, head, offset=offset)]
            if model.cfg.d_out:
                circuits.append(ov_circuit(weights, head))
            for circuit in circuits:
                place = {"layer": head.layer, "head": head.head, "site": circuit.kind}
                rows += [place | row for row in _rows(model, circuit, config)]
        return findings_table(rows)


def _rows(model: Any, circuit: "Circuit", config: EntriesConfig) -> Iterator[dict[str, Any]]:
    from workbench.figures.tokens import visible
    from workbench.trigrams.named_tokens import spelled_tokens

    k = min(config.k, circuit.shape[0] * circuit.shape[1])
    found = circuit.top(k, config.by)  # type: ignore[arg-type]  # checked by the config
    common = {"seed": config.seed, "unit": circuit.unit}
    texts = spelled_tokens(model, [*found.rows.tolist(), *found.columns.tolist()])
    arrow = "→" if circuit.kind == "OV" else "←"
    names = [
        f"{visible(texts[row])} {arrow} {visible(texts[column])}"
        for row, column in zip(found.rows.tolist(), found.columns.tolist(), strict=True)
    ]
    null = turned_extremes(circuit, config) if max(circuit.shape) <= config.largest_vocab else ()
    yield {
        "measure": LARGEST if config.by == "largest" else f"extreme entry ({config.by})",
        "item": names[0],
        **beside_null(float(found.values[0]), null),
        **common,
    }
    for name, value in zip(names, found.values.tolist(), strict=True):
        yield {"measure": "entry", "item": name, "value": value, **common}


def turned_extremes(circuit: "Circuit", config: EntriesConfig) -> list[float]:
    """The extreme entry of the circuit, its factors turned against each other, once for every draw."""
    from probes.turned import rotations

    left, right = circuit.left, circuit.right.T
    extremes = []
    if not config.n_draws:
        return []
    for turn in rotations(config.n_draws, 1, left.shape[1], config.seed)[:, 0].to(left):
        turned = left @ turn @ right
        low, high = (float(end) for end in turned.aminmax())
        chosen = {"largest": high, "smallest": low, "size": high if high > -low else low}
        extremes.append(chosen[config.by])
    return list(np.asarray(extremes, dtype=float))


PROBE = TopCircuitEntries()
