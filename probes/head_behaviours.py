"""What each head attends to on repeats of random tokens, against the same head, its queries turned at random.

    score(behaviour) = Σ of attention on the keys that the behaviour is about, mean over queries that have any

(`workbench.heads.behaviours`; Olsson et al. 2022, "In-context Learning and Induction Heads".) Null:
`probes.turned`.
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
from probes.nulls import beside_null

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

SHORTEST = 8
UNIFORM = "uniform attention"


@dataclass(frozen=True)
class BehavioursConfig:
    """How many random repeats are read, and how often queries are turned."""

    n_prompts: int = 6
    n_tokens: int = 48
    n_draws: int = 199
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 2, 1000)
        check_whole("n_tokens", self.n_tokens, SHORTEST, 2048)
        check_whole("n_draws", self.n_draws, 1, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class HeadBehaviours(Probe):
    """Previous-token, duplicate-token, induction heads and the like."""

    name = "head-behaviours"
    title = "Heads: what they attend to"
    version = 2
    question = "Which heads attend to the previous, the same, the first or the token after an earlier copy?"
    method = (
        "On `[BOS] p r r r …` with r of random tokens and random period: `score = mean over queries of Σ_key "
        "pattern[query, key]`, over the keys that a behaviour is about and the queries that have any; also "
        "`entropy = −Σ_key pattern log pattern` and the mean distance `Σ_key pattern · (query − key)`. "
        "Intervals: bootstrap over prompts. Null: the same queries and keys, turned against each other by "
        "random rotations `q R` of each head's dimensions; p is the rank among them, "
        f"two-sided. Rows with site “{UNIFORM}” give what a head scores that attends to all it sees alike. "
        "Source: Olsson et al. 2022, *In-context Learning and Induction Heads*."
    )
    limits = (
        "Random tokens, not text: a head may do otherwise there. High induction scores are no proof of a "
        "circuit of two layers. p says that attention is not by chance, not that it matters. No p where a "
        "bias, a norm or a cap stands between queries and scores."
    )
    needs = (
        "Sites q, k and pattern; no data, prompts are random tokens; transformers and encoders with "
        "attention."
    )
    kind = "weights"
    Config = BehavioursConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No attention, or a context too short for repeats."""
        return no_patterns(facts)

    def cost(self, facts: ModelFacts, data: DataFacts, config: BehavioursConfig) -> Cost:
        """Patterns of all draws, one forward pass, and rotations."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        return pattern_cost(facts, config.n_prompts, n_tokens, config.n_draws)

    def run(
        self, model: Any, data: ProbeData, config: BehavioursConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each head and behaviour, and one for each behaviour under uniform attention."""
        from probes.turned import turned_scores
        from workbench.heads.behaviours import head_scores
        from workbench.prompts import random_repeats, reach

        length = min(config.n_tokens, reach(model))
        tokens = random_repeats(model, config.n_prompts, length, config.seed)
        progress(0.0, "patterns")
        scored = head_scores(model, prompts=tokens, seed=config.seed)
        null = turned_scores(
            model,
            tokens,
            behaviour_weights,
            n_draws=config.n_draws,
            seed=config.seed,
            progress=lambda done, of: progress(0.1 + 0.9 * done / of, "turned queries"),
        )
        return findings_table(_rows(scored.table(), null, config.seed))


def no_patterns(facts: ModelFacts) -> str:
    """Why no patterns can be scored on random prompts."""
    if not facts.has_attention:
        return f"it has no attention, so no patterns: {facts.described}"
    if facts.n_ctx < SHORTEST:
        few = f"patterns are scored on {SHORTEST} tokens or more, and it reads {facts.n_ctx}"
        return f"{few}: {facts.described}"
    return ""


def pattern_cost(facts: ModelFacts, n_prompts: int, n_tokens: int, n_draws: int) -> Cost:
    """What turned patterns take, and one forward pass."""
    heads, cells = facts.n_layers * facts.n_heads, n_tokens**2
    flops = (
        n_prompts * heads * n_draws * (2 * n_tokens * facts.d_head**2 + 2 * cells * facts.d_head)
    )
    patterns = n_prompts * heads * n_draws * cells * 9e-9
    forward = 4 * n_prompts * n_tokens * facts.n_params / 1.5e10
    turns = facts.n_heads * n_draws * (facts.d_head**3 * 1e-9 + 2e-5)
    kept = 8 * n_tokens * facts.n_layers * facts.n_heads * (2 * facts.d_head + n_tokens) * 4
    held = kept + 8 * n_tokens * facts.d_out * 8 + facts.n_heads * n_draws * facts.d_head**2 * 8
    return Cost(0.2 + flops / 3e10 + patterns + forward + turns, held + 2e8)


def behaviour_weights(tokens: "Int[Tensor, '1 pos']") -> "Float[Tensor, 'measure query key']":
    """Every behaviour, and the mean distance, as weights of a pattern's cells; NaN where it has no query."""
    import torch

    from workbench.heads.behaviours import BEHAVIOURS

    n_pos = tokens.shape[1]
    found = []
    for behaviour in BEHAVIOURS.values():
        target = behaviour(tokens)[0].float()
        found.append(target / target.any(-1).sum())
    positions = torch.arange(n_pos)
    away = (positions[:, None] - positions).abs().float() / (n_pos - 1)
    away[0] = 0
    return torch.stack([*found, away])


def _rows(
    scored: pd.DataFrame, null: "dict[int, Float[np.ndarray, 'draw head measure']]", seed: int
) -> Iterator[dict[str, Any]]:
    from workbench.heads.behaviours import BEHAVIOURS

    place = {name: index for index, name in enumerate([*BEHAVIOURS, "distance", "entropy"])}
    for name, rows in scored.groupby("behaviour", sort=False):
        yield {
            "measure": name,
            "site": UNIFORM,
            "value": rows["chance"].iloc[0],
            "n": rows["n"].iloc[0],
            "seed": seed,
            "unit": rows["unit"].iloc[0],
        }
    for row in scored.itertuples():
        drawn = null.get(row.layer)
        draws = np.empty(0) if drawn is None else drawn[:, row.head, place[row.behaviour]]
        yield {
            "measure": row.behaviour,
            "layer": row.layer,
            "head": row.head,
            **beside_null(row.value, draws),
            "low": row.low,
            "high": row.high,
            "n": row.n,
            "seed": seed,
            "unit": row.unit,
        }


PROBE = HeadBehaviours()
