"""How the prediction comes about from layer to layer, on text that nothing was fitted on.

    logits[depth] = unembed(final_norm(resid[depth]))
    loss = -log p(next),   KL = KL(final ‖ depth),   rank = how many tokens are likelier than the right one

(`workbench.stream.lens`; nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023,
"Eliciting Latent Predictions from Transformers with the Tuned Lens".) Null of loss and rank:
`probes.relabelled`.
"""

from collections.abc import Iterator, Sequence
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

MEASURES = {"loss": "nats", "log rank": "log(1 + rank)", "KL to final": "nats", "right": "share"}
TESTED = ("loss", "log rank")


@dataclass(frozen=True)
class LensConfig:
    """How much text is read, and at how many depths.

    Args:
        n_prompts: rows of `n_tokens` from documents held out; all documents where there is only one.
        most_depths: of a deeper model so many depths, evenly spaced, the first and the last among them.
        n_draws: permutations of the vocabulary behind p.
    """

    n_prompts: int = 12
    n_tokens: int = 48
    most_depths: int = 13
    n_draws: int = 199
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 100_000)
        check_whole("n_tokens", self.n_tokens, 3, 100_000)
        check_whole("most_depths", self.most_depths, 2, 1000)
        check_whole("n_draws", self.n_draws, 0, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class LogitLensProbe(Probe):
    """Loss, rank and distance to the final prediction by depth."""

    name = "logit-lens"
    title = "Layers: how the prediction forms"
    version = 2
    question = "At which layer is the next token known?"
    method = (
        "The stream after the embedding and after each layer, read by the final norm and the unembedding, "
        "`p[layer] = softmax(norm(x[layer]) W_U)`: `loss = mean −log p[layer](next)`, mean log(1 + rank) of "
        "the true next token, how often it is the first, and `KL = mean Σ p[last] log(p[last] / p[layer])`. "
        "On documents held out (a quarter, by the seed). Intervals draw documents again (bootstrap). Null of "
        "loss and rank: the vocabulary renamed by random permutations; p is the rank among them, two-sided. "
        "Sources: nostalgebraist 2020; Belrose et al. 2023."
    )
    limits = (
        "A layer that reads as nonsense need not know nothing: the lens sees only what is written in the final "
        "basis (a tuned lens sees more). Early layers may be worse than uniform guessing. With tied "
        "embeddings renaming the vocabulary is no exact null: embedding and unembedding share weights, so "
        "the stream writes for its own token from the start, and text that repeats tokens lies off the null."
    )
    needs = (
        "Sites resid_pre and resid_post; text; causal transformers with a tokenizer, norms not after "
        "the sums."
    )
    kind = "data"
    Config = LensConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No text, no next token, no layers, or a stream that cannot be read."""
        return no_next_token(facts) or (
            "" if facts.n_layers else f"it has no layers to read one by one: {facts.described}"
        )

    def cost(self, facts: ModelFacts, data: DataFacts, config: LensConfig) -> Cost:
        """A forward pass and a reading of every depth."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        n_positions = config.n_prompts * n_tokens
        depths = min(config.most_depths, facts.n_layers + 1)
        forward = n_positions * 2 * facts.n_params / 1.5e10
        readings = n_positions * depths * facts.d_out * (2 * facts.d_model / 1.5e10 + 6e-9)
        names = config.n_prompts * config.n_draws * facts.d_out * 1.2e-8
        drawn = n_positions * depths * config.n_draws * 1e-7
        held = n_tokens * facts.d_out * 8 * 6 + n_tokens * facts.d_model * depths * 8
        return Cost(0.3 + forward + readings + names + drawn, held + 5e7)

    def run(
        self, model: Any, data: ProbeData, config: LensConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """For each depth, loss, rank, share right and distance; layer is the depth, 0 the embedding."""
        chosen = data.split(config.seed).held_out if len(data.documents) > 1 else data
        asked = (config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed)
        tokens = chosen.tokens(model, *asked)
        documents = chosen.documents_of_tokens(model, *asked)
        # Depth 0 is the embedding, depth l + 1 the stream after layer l.
        ends = np.linspace(0, model.cfg.n_layers, min(config.most_depths, model.cfg.n_layers + 1))
        depths = [int(depth) for depth in np.unique(ends.round())]
        values, nulls = [], []
        for done, row in enumerate(tokens):
            progress(done / len(tokens), "prompts")
            value, null = _prompt(model, row, depths, config)
            values.append(value)
            nulls.append(null)
        found = (np.stack(values), np.mean(nulls, axis=0))
        n = len(tokens) * (tokens.shape[1] - 1)
        return findings_table(_rows(depths, found, documents, n, config.seed))


def _prompt(
    model: Any, row: "Tensor", depths: Sequence[int], config: LensConfig
) -> tuple[Float[np.ndarray, "depth measure"], Float[np.ndarray, "depth draw tested"]]:
    """Means over one prompt's positions."""
    from workbench.runs import run
    from workbench.sites import Site

    sites = [Site("resid_post", depth - 1) if depth else Site("resid_pre", 0) for depth in depths]
    one = run(model, row[None], sites=sites)
    final = one.logits[0, :-1].double().log_softmax(-1)
    targets = row[1:].cpu().numpy()
    drawn = relabelled(targets, final.shape[1], n_draws=config.n_draws, seed=config.seed)
    read = [_read(model, one[site][0, :-1], final, targets, drawn) for site in sites]
    return np.stack([value for value, _ in read]), np.stack([null for _, null in read])


def _read(
    model: Any,
    stream: "Float[Tensor, 'pos d_model']",
    final: "Float[Tensor, 'pos token']",
    targets: Int[np.ndarray, " pos"],
    drawn: Int[np.ndarray, "draw pos"],
) -> tuple[Float[np.ndarray, " measure"], Float[np.ndarray, "draw tested"]]:
    import torch

    with torch.no_grad():
        log_probs = model.readout(stream).log_softmax(-1)
    at, plain = np.arange(len(targets)), log_probs.double()
    kl = (final.exp() * (final - plain)).sum(-1).clamp(min=0)
    loss = -plain.cpu().numpy()
    # The rank of a token is how many losses are smaller.
    order = np.sort(loss, axis=1)

    def measured(tokens: Int[np.ndarray, "*draw pos"]) -> Float[np.ndarray, "*draw two"]:
        of = loss[at, tokens]
        ranks = [np.searchsorted(order[pos], of[..., pos]) for pos in at]
        log_rank = np.log1p(np.stack(ranks, axis=-1))
        return np.stack([of.mean(-1), log_rank.mean(-1)], axis=-1)

    right = float((loss[at, targets] <= order[:, 0]).mean())
    value = np.array([*measured(targets), float(kl.mean()), right])
    return value, measured(drawn)


def _rows(
    depths: Sequence[int],
    found: tuple[Float[np.ndarray, "prompt depth measure"], Float[np.ndarray, "depth draw tested"]],
    documents: Int[np.ndarray, " prompt"],
    n: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    values, null = found
    for index, depth in enumerate(depths):
        for place, (measure, unit) in enumerate(MEASURES.items()):
            draws = null[index, :, place] if measure in TESTED else ()
            of = values[:, index, place]
            by_document = [of[documents == one].mean() for one in np.unique(documents)]
            yield {
                "measure": measure,
                "layer": depth,
                "site": "resid_post" if depth else "resid_pre",
                "item": f"after layer {depth - 1}" if depth else "embedding",
                **beside_null(float(of.mean()), draws),
                **bootstrap(np.array(by_document), seed=seed),
                "n": n,
                "seed": seed,
                "unit": unit,
            }


PROBE = LogitLensProbe()
