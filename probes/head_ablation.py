"""What the model loses without each head: `workbench.heads.ablation` over text.

    effect = mean log p(next) - mean log p(next | z of the head = its mean)        nats
    kl     = mean KL(p ‖ p without the head)                                       nats

The null of the effect renames the vocabulary (`probes.relabelled` says why): the same change of the
predictions, read at tokens that the model cannot have meant.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.direct_logit_attribution import no_next_token
from probes.facts import ModelFacts
from probes.nulls import beside_null, bootstrap

if TYPE_CHECKING:
    from workbench.heads.ablation import HeadEffects


@dataclass(frozen=True)
class AblationConfig:
    """How much text is read.

    Args:
        n_prompts: rows of `n_tokens`; means are taken over the same rows.
        n_draws: renamings of the vocabulary behind p.
    """

    n_prompts: int = 12
    n_tokens: int = 48
    n_draws: int = 499
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 100_000)
        check_whole("n_tokens", self.n_tokens, 4, 100_000)
        check_whole("n_draws", self.n_draws, 2, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class HeadAblation(Probe):
    """The effect of every head on the loss."""

    name = "head-ablation"
    title = "Heads: what is lost without them"
    version = 2
    question = "How much worse does the model predict the next token without each head?"
    method = (
        "Each head's output before `W_O` is replaced by its mean over all prompts and positions (the first "
        "position stays), and all that is behind is computed anew; `effect = mean log p(next) − mean log "
        "p(next | head replaced)`, the rise of the loss in nats, and `kl = mean KL(p ‖ p | head replaced)`. "
        "Intervals draw documents again (bootstrap). Null of the effect: the vocabulary renamed by random "
        "permutations; p is the rank among them, two-sided. Source: Wang et al. 2022, Interpretability in the "
        "Wild, section 2."
    )
    limits = (
        "One head at a time: what two heads do in each other's place does not show. Mean ablation "
        "takes the model off the inputs that it was trained on, so an effect is no measure of what a head "
        "adds by itself. Means are over the same text."
    )
    needs = (
        "Sites resid_pre and z, which are edited; text; causal transformers with attention and a "
        "tokenizer, norms not after the sums."
    )
    kind = "data"
    Config = AblationConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No text, no next token, or no heads."""
        return no_next_token(facts) or (
            "" if facts.has_attention else f"it has no heads: {facts.described}"
        )

    def cost(self, facts: ModelFacts, data: DataFacts, config: AblationConfig) -> Cost:
        """For each head the layers from its own on, and the logits."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        n_heads = facts.n_layers * facts.n_heads
        positions = config.n_prompts * n_tokens
        unembedding = facts.d_model * facts.d_out
        layers = max(0, facts.n_params - unembedding)
        passes = positions * (3 + n_heads / 2) * 2 * layers / 2.5e10
        logits = positions * n_heads * (2 * unembedding / 2.5e10 + facts.d_out * 1.5e-8)
        draws = positions * n_heads * config.n_draws * 3e-9
        renamed = config.n_draws * facts.d_out * 5e-8
        rows = min(facts.n_heads, max(1.0, 4e8 / (8 * n_tokens * facts.d_out)))
        held = rows * n_tokens * facts.d_out * 4 * 4 + config.n_draws * facts.d_out * 16
        return Cost(0.3 + passes + logits + draws + renamed, held + 6e7)

    def run(
        self, model: Any, data: ProbeData, config: AblationConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """For each head its effect and its divergence."""
        from workbench.heads.ablation import head_effects

        asked = (config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed)
        tokens = data.tokens(model, *asked)
        documents = data.documents_of_tokens(model, *asked)
        found = head_effects(
            model,
            tokens,
            n_draws=config.n_draws,
            seed=config.seed,
            progress=lambda done, of: progress(done / of, "prompts"),
        )
        return findings_table(_rows(found, documents, len(tokens) * (tokens.shape[1] - 2)))


def _rows(
    found: "HeadEffects", documents: Int[np.ndarray, " prompt"], n: int
) -> Iterator[dict[str, Any]]:
    for index, head in enumerate(found.heads):
        for measure, of in (("effect", found.effect[:, index]), ("kl", found.kl[:, index])):
            by_document = [of[documents == one].mean() for one in np.unique(documents)]
            yield {
                "measure": measure,
                "layer": head.layer,
                "head": head.head,
                "site": "z",
                **beside_null(
                    float(of.mean()), found.null[:, index] if measure == "effect" else ()
                ),
                **bootstrap(np.array(by_document), seed=found.seed),
                "n": n,
                "seed": found.seed,
                "unit": "nats",
            }


PROBE = HeadAblation()
