"""How much better the next token is predicted late in the context than early.

    loss[bin]  = mean -log p(next) over the positions of the bin
    score      = mean over documents of (mean loss of the last quarter - mean loss of the second eighth)

Negative where context helps. (Kaplan et al. 2020, section 3.3, loss by position; Olsson et al. 2022,
"In-context Learning and Induction Heads", the in-context learning score: there the 500th token minus the 50th,
here shares of the context, so that it exists for short ones.)

Null of the score: early and late trade places in random documents (signs flipped).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.direct_logit_attribution import no_next_token
from probes.facts import ModelFacts
from probes.nulls import beside_null, bootstrap

N_BINS = 16
EARLY, LATE = slice(2, 4), slice(12, 16)


@dataclass(frozen=True)
class ContextConfig:
    """How much text is read.

    Args:
        n_prompts: rows of `n_tokens`, or of the longest context that the model has.
        n_draws: flips of signs behind p.
    """

    n_prompts: int = 32
    n_tokens: int = 256
    n_draws: int = 1999
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 2, 100_000)
        check_whole("n_tokens", self.n_tokens, N_BINS + 1, 100_000)
        check_whole("n_draws", self.n_draws, 2, 1_000_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class InContextLearning(Probe):
    """Loss by position, and what it falls by."""

    name = "in-context-learning"
    title = "Context: the loss by position"
    version = 1
    question = "How much better is the next token predicted late in the context than early?"
    method = (
        f"Mean loss in {N_BINS} bins of equal width over the context, and the score: loss of the last "
        "quarter minus loss of the second eighth, in nats; below 0 context helps. Intervals draw "
        "documents again (bootstrap). Null of the score: late and early trade places in random "
        "documents; p is the rank among these, two-sided. Sources: "
        "Kaplan et al. 2020, section 3.3; Olsson et al. 2022."
    )
    limits = (
        "Text is not alike throughout: rows are cut from anywhere in their documents, but a document's "
        "own drift stays. Scores of different context lengths do not compare."
    )
    kind = "data"
    Config = ContextConfig

    def refuses(self, facts: ModelFacts) -> str:
        """No text, no next token, or a context too short to be divided."""
        short = f"its context is shorter than {N_BINS + 1} tokens: {facts.described}"
        return no_next_token(facts) or (short if facts.n_ctx <= N_BINS else "")

    def cost(self, facts: ModelFacts, data: DataFacts, config: ContextConfig) -> Cost:
        """A forward pass."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = config.n_prompts * n_tokens
        forward = positions * (2 * facts.n_params / 2.5e10 + facts.d_out * 2e-8)
        return Cost(0.3 + forward, n_tokens * facts.d_out * 4 * 4 + 4e7)

    def run(
        self, model: Any, data: ProbeData, config: ContextConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """The loss of each bin, then the score."""
        asked = (config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed)
        tokens = data.tokens(model, *asked)
        documents = data.documents_of_tokens(model, *asked)
        losses = []
        for index, row in enumerate(tokens):
            losses.append(_losses(model, row))
            progress((index + 1) / len(tokens), "prompts")
        bins = [part.mean(1) for part in np.array_split(np.stack(losses), N_BINS, axis=1)]
        by_bin = np.stack(bins, axis=1)
        by_document = np.stack([by_bin[documents == one].mean(0) for one in np.unique(documents)])
        return findings_table(_rows(by_document, tokens.shape[1] - 1, len(tokens), config))


def _losses(model: Any, row: "Int[Any, ' pos']") -> Float[np.ndarray, " query"]:
    from workbench.runs import run

    log_probs = run(model, row[None], sites=()).logits[0, :-1].log_softmax(-1)
    found: Float[np.ndarray, " query"] = (
        -log_probs.gather(1, row[1:, None])[:, 0].double().cpu().numpy()
    )
    return found


def _rows(
    losses: Float[np.ndarray, "document bin"], n_queries: int, n_prompts: int, config: ContextConfig
) -> Iterator[dict[str, Any]]:
    edges = [part[0] for part in np.array_split(np.arange(n_queries), N_BINS)]
    common = {"seed": config.seed, "unit": "nats"}
    for index, start in enumerate(edges):
        yield {
            "measure": "loss",
            "item": f"{start:05d}",
            "value": losses[:, index].mean(),
            **bootstrap(losses[:, index], seed=config.seed),
            "n": n_prompts * n_queries // N_BINS,
            **common,
        }
    gains = losses[:, LATE].mean(1) - losses[:, EARLY].mean(1)
    signs = np.random.default_rng(config.seed).choice([-1.0, 1.0], (config.n_draws, len(gains)))
    yield {
        "measure": "score",
        "item": "late - early",
        **beside_null(float(gains.mean()), (signs * gains).mean(1)),
        **bootstrap(gains, seed=config.seed),
        "n": len(gains),
        **common,
    }


PROBE = InContextLearning()
