"""Skip-trigrams of every head, `[source] … [destination] → [out]`, and whether text has them.

    score = max(N[destination, source], 0) · max(M[source, out], 0)     N the QK circuit, M the OV circuit
    rate  = share of `out` right after `destination` with `source` before
    chance = the same whatever stands before

(`workbench.trigrams`; Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
"Interpretation as skip-trigrams".) Each head's lift is the mean of rate - chance over its list. Null of the
lift: the same list with other outs, the list's own ones exchanged token by token. Where embeddings hold
nothing, every such exchange is as likely as the list itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.copying_eigenvalues import no_circuits
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import beside_null

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.trigrams.listing import SkipTrigrams

LIFT = "lift"
UNIT = "share of destinations"


@dataclass(frozen=True)
class TrigramsConfig:
    """How long the lists are, of how many heads, and in how much text they are counted.

    Args:
        k: trigrams of each head.
        most_heads: heads looked at, from the first layer on: there the stream holds the embedding itself.
        n_prompts: rows of `n_tokens` of text; a source counts within its row.
        n_draws: exchanges of outs behind the p of each head's lift.
    """

    k: int = 40
    most_heads: int = 16
    n_prompts: int = 400
    n_tokens: int = 128
    n_draws: int = 999
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1, 1000)
        check_whole("most_heads", self.most_heads, 1, 100_000)
        check_whole("n_prompts", self.n_prompts, 1, 1_000_000)
        check_whole("n_tokens", self.n_tokens, 4, 100_000)
        check_whole("n_draws", self.n_draws, 0, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class SkipTrigramsProbe(Probe):
    """What single heads make likelier, checked against text."""

    name = "skip-trigrams"
    title = "Heads: skip-trigrams in text"
    version = 2
    question = "Which skip-trigrams does each head raise, and does text have them?"
    method = (
        "The k best triples by `score = max(QK[destination, source], 0) · max(OV[source, out], 0)`, exactly, "
        "over the whole vocabulary; then `rate = count(source … destination out) / count(source … "
        "destination)` in the data, with Wilson's interval, beside `chance = count(destination out) / "
        "count(destination)` (null mean). A head's `lift = mean (rate − chance)` over its list. Null of the "
        "lift: the outs of the list exchanged among each other, token by token; p is the rank among these, "
        "two-sided. Source: Elhage et al. 2021, *A Mathematical Framework for Transformer Circuits*."
    )
    limits = (
        "Exact for what the embedding holds: the first layers come first. Single rates have no p: words of one "
        "document come in bursts, whatever a head does. A trigram that text lacks may still be a true rule of "
        "text that is not here."
    )
    needs = (
        "Weights, no sites; text, in which trigrams are counted; causal transformers with attention "
        "and a tokenizer."
    )
    kind = "data"
    Config = TrigramsConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No circuits, no text, or nothing that comes next."""
        if reason := no_circuits(facts):
            return reason
        if not facts.is_causal or not facts.has_unembed:
            return f"nothing there comes after a source: {facts.described}"
        if not facts.has_tokenizer:
            return f"it reads no text, in which trigrams could be counted: {facts.described}"
        return "" if facts.n_ctx >= 4 else f"rows of text need 4 tokens: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: TrigramsConfig) -> Cost:
        """The search of every head, then counting."""
        heads = min(config.most_heads, facts.n_layers * facts.n_heads)
        made = 8 * facts.d_vocab * facts.d_model * facts.d_head / 1.2e10
        search = 0.05 + 1.5e-11 * float(facts.d_vocab) ** 2 * facts.d_head
        n_tokens = config.n_prompts * min(config.n_tokens, facts.n_ctx)
        counts = config.k**2 * 7e-5 + config.k * n_tokens * 6e-9 + config.n_draws * 1.5e-5
        held = 4 * facts.d_vocab * (3 * facts.d_model + 16 * facts.d_head) + n_tokens * 60
        return Cost(0.3 + n_tokens * 4e-6 + heads * (made + search + counts), held + 3e8)

    def run(
        self, model: Any, data: ProbeData, config: TrigramsConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """For each head its lift, then score and rate of each trigram."""
        from workbench.trigrams.listing import skip_trigrams
        from workbench.weights import effective_weights

        n_tokens = min(config.n_tokens, model.cfg.n_ctx)
        text = data.tokens(model, config.n_prompts, n_tokens, config.seed)
        weights = effective_weights(model, normalise_tokens=True)
        heads = weights.heads[: config.most_heads]
        rows: list[dict[str, Any]] = []
        for done, head in enumerate(heads):
            progress(done / len(heads), f"head {head}")
            listed = skip_trigrams(weights, head, k=config.k)
            place = {"layer": head.layer, "head": head.head, "seed": config.seed}
            rows += [place | row for row in _rows(model, listed, text, config)]
        return findings_table(rows)


def _rows(
    model: Any, listed: "SkipTrigrams", text: "Tensor", config: TrigramsConfig
) -> Iterator[dict[str, Any]]:
    from workbench.figures.tokens import visible
    from workbench.trigrams.counts import occurrences

    if not len(listed):
        yield {"measure": LIFT, "value": np.nan, "n": 0, "unit": UNIT}
        return
    every, excess = crossed(listed, text, model)
    lift, drawn = exchanged_lifts(every, excess, config)
    yield {
        "measure": LIFT,
        **beside_null(lift, drawn),
        "n": int(np.isfinite(lift) and np.isfinite(excess).all(1).sum()),
        "unit": UNIT,
    }
    counted = occurrences(model, listed, tokens=text, n_measured=0, seed=config.seed).table()
    for row in counted.itertuples():
        source, destination, out = map(visible, (row.source, row.destination, row.out))
        name = f"{source} … {destination} → {out}"
        yield {"measure": "score", "item": name, "value": row.score, "unit": row.unit}
        yield {
            "measure": "rate",
            "item": name,
            "value": row.rate,
            "null_mean": row.chance,
            "low": row.low,
            "high": row.high,
            "n": row.n,
            "unit": UNIT,
        }


def crossed(
    listed: "SkipTrigrams", text: "Tensor", model: Any
) -> tuple[Int[np.ndarray, " trigram"], Float[np.ndarray, "trigram out"]]:
    """The place of each trigram's out among all outs, and rate - chance of its pair with each of these."""
    from workbench.trigrams.counts import occurrences

    outs, place = np.unique(listed.out, return_inverse=True)
    n, n_outs = len(listed), len(outs)
    repeated: dict[str, Any] = {
        name: np.repeat(getattr(listed, name), n_outs)
        for name in ("source", "destination", "attention", "output")
    }
    every = replace(listed, **repeated, out=np.tile(outs, n))
    counted = occurrences(model, every, tokens=text, n_measured=0).table()
    excess = (counted["rate"] - counted["chance"]).to_numpy()
    return place, excess.reshape(n, n_outs)


def exchanged_lifts(
    place: Int[np.ndarray, " trigram"],
    excess: Float[np.ndarray, "trigram out"],
    config: TrigramsConfig,
) -> tuple[float, Float[np.ndarray, " draw"]]:
    """The list's mean excess, and that of every draw; NaN and none where its pairs never occur."""
    seen = np.isfinite(excess).all(1)
    if not seen.any():
        return float("nan"), np.empty(0)
    rows, place, rng = np.flatnonzero(seen), place[seen], np.random.default_rng(config.seed)
    n_outs = excess.shape[1]
    draws = [excess[rows, rng.permutation(n_outs)[place]].mean() for _ in range(config.n_draws)]
    return float(excess[rows, place].mean()), np.array(draws, dtype=float)


PROBE = SkipTrigramsProbe()
