"""How modular a network's wiring is: Newman's Q, normalised cut and length, each beside shuffled weights.

(`workbench.training.modularity`; Newman & Girvan 2004; Liu, Gan & Tegmark 2023, "Seeing is Believing", for the
wiring length.) A model alone does not know its task: the loss that belongs beside these numbers is measured
where it is the next token's and the text can be read, and left out elsewhere.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.direct_logit_attribution import no_next_token
from probes.facts import ModelFacts, facts_of
from probes.nulls import beside_null
from workbench.errors import UnsupportedError

MOST_WIRES = 3_000_000


@dataclass(frozen=True)
class ModularityConfig:
    """How the null is drawn.

    Args:
        n_shuffles: networks with each matrix's weights shuffled.
        trials: runs of the search for the best partition.
        n_prompts: of `n_tokens`, for the loss of a language model.
    """

    n_shuffles: int = 19
    trials: int = 1
    n_prompts: int = 8
    n_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_shuffles", self.n_shuffles, 2, 10_000)
        check_whole("trials", self.trials, 1, 100)
        check_whole("n_prompts", self.n_prompts, 1, 10_000)
        check_whole("n_tokens", self.n_tokens, 3, 4096)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class ModularityWiring(Probe):
    """Modularity and wiring length."""

    name = "modularity-wiring"
    title = "Modularity and wiring"
    version = 2
    question = "Do the network's units fall into modules, and how long are its wires?"
    method = (
        "The graph of absolute weights A between units of strength k: "
        "`Newman Q = Σ_ij (A_ij − k_i k_j / 2m) [same module] / 2m` of the best partition found (Leiden), "
        "the normalised cut `Σ_module (weight that leaves it / strength of its units)`, and "
        "`wiring length = Σ |w| · distance` on a line of each group; each against the same network "
        "with every matrix's weights shuffled. p is the rank among the shuffles, two-sided. "
        "Sources: Newman & Girvan 2004; Liu, Gan & Tegmark 2023."
    )
    limits = (
        "Graph measures do not see what a module computes. Shuffling a nearly sparse network makes fragments "
        "of high Q, so after strong L1 a low z is no lack of modules: prune first. Perceptrons, and models "
        "that cannot read the text, stand here without their task's loss."
    )
    needs = (
        "Weights; text for the loss beside them, where the model reads it; own transformers and "
        "multilayer perceptrons."
    )
    kind = "data"
    Config = ModularityConfig
    draws = "n_shuffles"

    def refuses(self, facts: ModelFacts) -> str:
        """Other people's architectures, and graphs that would take minutes."""
        if not facts.is_ours:
            return (
                f"its wires are not known: {facts.described}; own models and perceptrons have them"
            )
        if facts.n_params > MOST_WIRES:
            return f"it has {facts.n_params:,} weights, more than {MOST_WIRES:,}: {facts.described}"
        return "" if facts.n_layers else f"it has no layers between its units: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: ModularityConfig) -> Cost:
        """The search for partitions, for the network and each shuffle."""
        searched = (1 + config.n_shuffles) * facts.n_params * config.trials * 9e-7
        return Cost(0.4 + searched, facts.n_params * 120 + 6e7)

    def run(
        self, model: Any, data: ProbeData, config: ModularityConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each measure."""
        from workbench.training.layouts import line_layout
        from workbench.training.modularity import Options, modularity
        from workbench.training.wires import groups, wires

        facts = facts_of(model)
        loss = math.nan if no_next_token(facts) else _loss(model, data, config)
        found = modularity(
            wires(model),
            groups(model),
            loss=loss,
            layout=line_layout(model),
            options=Options(n_shuffles=config.n_shuffles, trials=config.trials, seed=config.seed),
        )
        progress(1.0, "modules")
        rows = [
            {
                "measure": score.measure,
                **beside_null(score.value, score.null),
                "n": facts.n_params,
                "seed": config.seed,
                "unit": score.unit,
            }
            for score in found.scores
            if math.isfinite(score.value)
        ]
        return findings_table(rows)


def _loss(model: Any, data: ProbeData, config: ModularityConfig) -> float:
    """Mean loss of the next token, nats; NaN where the model's vocabulary has no words for this text."""
    from workbench.paths.ablation import next_token_loss
    from workbench.runs import run

    n_tokens = min(config.n_tokens, model.cfg.n_ctx)
    try:
        tokens = data.tokens(model, config.n_prompts, n_tokens, config.seed)
    except UnsupportedError:
        return math.nan
    runs = (run(model, row[None], sites=()) for row in tokens)
    losses = [float(next_token_loss(one.logits[0], one.tokens[0])) for one in runs]
    return sum(losses) / len(losses)


PROBE = ModularityWiring()
