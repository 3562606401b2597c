"""How attention falls with distance where there is nothing but position to go by.

    kernel[offset] = mean_i pattern[i, i - offset]      on distinct random tokens (`workbench.heads.kernels`)
    unevenness     = ½ Σ_offset |kernel - uniform| · cells / queries      0 = uniform, near 1 = one distance

Null: `probes.turned`.
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
from probes.head_behaviours import SHORTEST, no_patterns, pattern_cost
from probes.nulls import beside_null

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class KernelsConfig:
    """How many prompts of random tokens are read, and how often queries are turned."""

    n_prompts: int = 8
    n_tokens: int = 32
    n_draws: int = 199
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 2, 1000)
        check_whole("n_tokens", self.n_tokens, SHORTEST, 2048)
        check_whole("n_draws", self.n_draws, 1, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class PositionalKernels(Probe):
    """Attention by distance."""

    name = "positional-kernels"
    title = "Heads: attention by distance"
    version = 2
    question = "How far back does each head look when all tokens are random?"
    method = (
        "`kernel[offset] = mean over i of pattern[i, i − offset]` on distinct random tokens (item = tokens "
        "back), with a bootstrap interval over prompts and, as its null mean, uniform attention. Each head's "
        "`unevenness = ½ Σ_offset |kernel − uniform| · share of queries that have the offset`: 0 is uniform, "
        "near 1 is one distance alone. Its null, and that of the `mean distance`: the head's queries turned "
        "against its keys by random rotations; p is the rank among them."
    )
    limits = (
        "Farthest distances rest on few queries. Content that random tokens lack, such as line ends, may "
        "matter in text. Distances of one kernel sum to one, so they are not tested one by one."
    )
    needs = (
        "Sites q, k and pattern; no data, prompts are random tokens; transformers and encoders with "
        "attention."
    )
    kind = "weights"
    Config = KernelsConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No attention, or a context too short."""
        return no_patterns(facts)

    def cost(self, facts: ModelFacts, data: DataFacts, config: KernelsConfig) -> Cost:
        """As of any turned patterns, and as many measures as there are distances."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        turned = pattern_cost(facts, config.n_prompts, n_tokens, config.n_draws)
        rows = facts.n_layers * facts.n_heads * n_tokens
        measures = config.n_prompts * config.n_draws * rows * n_tokens**2 * 1.5e-10
        return Cost(turned.seconds + measures + rows * 1e-4, turned.nbytes + rows * 2000)

    def run(
        self, model: Any, data: ProbeData, config: KernelsConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each head and distance, and two for each head."""
        from probes.turned import turned_scores
        from workbench.heads.kernels import positional_kernel
        from workbench.prompts import random_tokens, reach

        length = min(config.n_tokens, reach(model))
        progress(0.0, "patterns")
        kernel = positional_kernel(
            model, n_prompts=config.n_prompts, n_pos=length, seed=config.seed
        )
        offsets = [int(offset) for offset in sorted(kernel["offset"].unique())]
        null = turned_scores(
            model,
            random_tokens(model, config.n_prompts, length, config.seed),
            lambda tokens: offset_weights(tokens, offsets),
            n_draws=config.n_draws,
            seed=config.seed,
            progress=lambda done, of: progress(0.1 + 0.9 * done / of, "turned queries"),
        )
        return findings_table([*_summaries(kernel, null, length, config.seed), *_curves(kernel)])


def offset_weights(
    tokens: "Int[Tensor, '1 pos']", offsets: list[int]
) -> "Float[Tensor, 'measure query key']":
    """The mean along each diagonal, as weights of a pattern's cells."""
    import torch

    positions = torch.arange(tokens.shape[1])
    away = positions[:, None] - positions
    return torch.stack([(away == offset) / (away == offset).sum() for offset in offsets]).float()


def _summaries(
    kernel: pd.DataFrame,
    null: "dict[int, Float[np.ndarray, 'draw head measure']]",
    length: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    for (layer, head), rows in kernel.groupby(["layer", "head"]):
        rows = rows.sort_values("offset")
        weight = rows["cells"].to_numpy() / length
        uniform, away = rows["chance"].to_numpy(), np.abs(rows["offset"].to_numpy())
        drawn = null.get(layer)
        draws = np.empty((0, len(rows))) if drawn is None else drawn[:, head, : len(rows)]
        own = rows["value"].to_numpy()[None]
        common = {"layer": layer, "head": head, "n": rows["n"].iloc[0], "seed": seed}
        uneven, uneven_draws = ((np.abs(x - uniform) * weight).sum(1) / 2 for x in (own, draws))
        yield {
            "measure": "unevenness",
            **beside_null(float(uneven[0]), uneven_draws),
            "unit": "share of attention",
            **common,
        }
        distance, distance_draws = ((x * weight * away).sum(1) for x in (own, draws))
        yield {
            "measure": "mean distance",
            **beside_null(float(distance[0]), distance_draws),
            "unit": "tokens",
            **common,
        }


def _curves(kernel: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in kernel.itertuples():
        yield {
            "measure": "kernel",
            "layer": row.layer,
            "head": row.head,
            "item": row.offset,
            "value": row.value,
            "null_mean": row.chance,
            "low": row.low,
            "high": row.high,
            "n": row.n,
            "seed": row.seed,
            "unit": row.unit,
        }


PROBE = PositionalKernels()
