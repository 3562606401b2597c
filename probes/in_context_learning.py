"""How much better the next token is predicted late in the context than early.

    loss[bin]  = mean -log p(next) over the positions of the bin
    score      = mean over documents of (mean loss of the last quarter - mean loss of the second eighth)

Negative where context helps. (Kaplan et al. 2020, section 3.3, loss by position; Olsson et al. 2022,
"In-context Learning and Induction Heads", the in-context learning score: there the 500th token minus the 50th,
here shares of the context, so that it exists for short ones.)

The null of the score renames the vocabulary (`probes.relabelled`): late and early stay, only which token it is
whose loss is measured changes. That they trade places would be no null: what a network that has learnt nothing
loses changes with the position too, by its norms and by how many keys its attention spreads over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.direct_logit_attribution import no_next_token
from probes.facts import ModelFacts
from probes.nulls import beside_null, bootstrap
from probes.relabelled import relabelled

if TYPE_CHECKING:
    from torch import Tensor

N_BINS = 16
EARLY, LATE = slice(2, 4), slice(12, 16)


@dataclass(frozen=True)
class ContextConfig:
    """How much text is read.

    Args:
        n_prompts: rows of `n_tokens`, or of the longest context that the model has.
        n_draws: renamings behind p.
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
    version = 2
    question = "How much better is the next token predicted late in the context than early?"
    method = (
        f"`loss = mean −log p(next)` in {N_BINS} bins of equal width over the context, and "
        "`score = loss of the last quarter − loss of the second eighth`, in nats, mean over documents; below "
        "0 context helps. Intervals draw documents again (bootstrap). Null of the score: the vocabulary "
        "renamed by random permutations; p is the rank among these, two-sided. Sources: Kaplan et al. 2020, "
        "section 3.3; Olsson et al. 2022."
    )
    limits = (
        "Text is not alike throughout: rows are cut from anywhere in their documents, but a document's "
        "own drift stays. Scores of different context lengths do not compare. p says that the loss of right "
        "tokens changes as that of renamed ones does not, which a model that reads no context shows too where "
        "late text is easier: read the score and its interval. With tied embeddings the null is not exact."
    )
    needs = (
        "Logits alone, no sites; text; causal transformers with a tokenizer and a context of 17 "
        "tokens or more."
    )
    kind = "data"
    Config = ContextConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No text, no next token, or a context too short to be divided."""
        short = f"its context is shorter than {N_BINS + 1} tokens: {facts.described}"
        return no_next_token(facts) or (short if facts.n_ctx <= N_BINS else "")

    def cost(self, facts: ModelFacts, data: DataFacts, config: ContextConfig) -> Cost:
        """A forward pass, permutations of the vocabulary, and losses of renamed tokens."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = config.n_prompts * n_tokens
        forward = positions * (2 * facts.n_params / 2.5e10 + facts.d_out * 2e-8)
        counted = positions * 6 / N_BINS
        renamed = config.n_draws * (facts.d_out * 1.2e-8 + counted * 1e-8)
        held = config.n_draws * min(counted, facts.d_out) * 16
        return Cost(0.3 + forward + renamed, n_tokens * facts.d_out * 4 * 4 + held + 4e7)

    def run(
        self, model: Any, data: ProbeData, config: ContextConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """The loss of each bin, then the score."""
        asked = (config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed, N_BINS + 1)
        tokens = data.tokens(model, *asked)
        documents = data.documents_of_tokens(model, *asked)
        weights = _weights(tokens.shape[1] - 1)
        counted = np.flatnonzero(weights)
        known, place = np.unique(tokens[:, 1:][:, counted].cpu().numpy(), return_inverse=True)
        names = relabelled(known, model.cfg.d_out, n_draws=config.n_draws, seed=config.seed)
        losses, null = [], []
        for index, (row, at) in enumerate(zip(tokens, place.reshape(len(tokens), -1), strict=True)):
            of_token = _losses(model, row)
            losses.append(of_token[np.arange(len(row) - 1), row[1:].cpu().numpy()])
            null.append(of_token[counted, names[:, at]] @ weights[counted])
            progress((index + 1) / len(tokens), "prompts")
        whose = [documents == one for one in np.unique(documents)]
        by_document = np.stack([np.stack(losses)[own].mean(0) for own in whose])
        drawn = np.mean([np.stack(null)[own].mean(0) for own in whose], axis=0)
        return findings_table(_rows(by_document, drawn, len(tokens), config))


def _weights(n_queries: int) -> Float[np.ndarray, " query"]:
    """What each position's loss counts in the score: late bins for it, early ones against; all bins alike."""
    weights = np.zeros(n_queries)
    bins = np.array_split(np.arange(n_queries), N_BINS)
    for some, sign in ((bins[LATE], 1.0), (bins[EARLY], -1.0)):
        for part in some:
            weights[part] = sign / len(some) / len(part)
    return weights


def _losses(model: Any, row: "Int[Tensor, ' pos']") -> Float[np.ndarray, "query token"]:
    """What would be lost if each token came next."""
    from workbench.runs import run

    log_probs = run(model, row[None], sites=()).logits[0, :-1].double().log_softmax(-1)
    found: Float[np.ndarray, "query token"] = -log_probs.cpu().numpy()
    return found


def _rows(
    losses: Float[np.ndarray, "document query"],
    null: Float[np.ndarray, " draw"],
    n_prompts: int,
    config: ContextConfig,
) -> Iterator[dict[str, Any]]:
    n_queries = losses.shape[1]
    common = {"seed": config.seed, "unit": "nats"}
    for part in np.array_split(np.arange(n_queries), N_BINS):
        of = losses[:, part].mean(1)
        yield {
            "measure": "loss",
            "item": f"{part[0]:05d}",
            "value": of.mean(),
            **bootstrap(of, seed=config.seed),
            "n": n_prompts * n_queries // N_BINS,
            **common,
        }
    gains = losses @ _weights(n_queries)
    yield {
        "measure": "score",
        "item": "late - early",
        **beside_null(float(gains.mean()), null),
        **bootstrap(gains, seed=config.seed),
        "n": len(gains),
        **common,
    }


PROBE = InContextLearning()
