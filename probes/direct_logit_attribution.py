"""What each part of the model writes, by itself, for the token that really comes next.

    value[part] = mean over positions of ⟨part, W_U[:, next] - mean over tokens of W_U⟩ / σ

with W_U folded and σ the final norm's scale in this very run, so that the parts of one position sum to the
logit of the next token minus the mean logit (`workbench.stream`; Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits"; Wang et al. 2023, "Interpretability in the Wild", §3.1). Null:
`probes.relabelled`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probes.configs import check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import beside_null, bootstrap
from probes.relabelled import relabelled

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.stream.parts import Part
    from workbench.weights import EffectiveWeights

TOTAL, RESIDUAL = "logit of the next token", "largest residual"


@dataclass(frozen=True)
class AttributionConfig:
    """How much text is read, and how often tokens are renamed."""

    n_prompts: int = 24
    n_tokens: int = 48
    n_draws: int = 199
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 1, 100_000)
        check_whole("n_tokens", self.n_tokens, 3, 100_000)
        check_whole("n_draws", self.n_draws, 0, 100_000)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class DirectLogitAttribution(Probe):
    """Who writes for the next token."""

    name = "direct-logit-attribution"
    title = "Parts: direct effect on the next token"
    version = 2
    question = (
        "Which heads, MLPs and embeddings raise the logit of the right next token, and by how much?"
    )
    method = (
        "The final stream is the sum of what embeddings, heads, MLPs and biases wrote. `value[part] = mean "
        "over positions of ⟨part, W_U[next] − mean over tokens of W_U⟩ / σ`, in logits, next being the true "
        "next token and σ the final norm's scale as it was. Intervals draw documents again (bootstrap). Null: "
        "the vocabulary renamed by random permutations; p is the rank among them, two-sided. The residual row "
        "says how far the parts are from the model's own logits. Sources: Elhage et al. 2021; Wang et al. "
        "2023, §3.1."
    )
    limits = (
        "Direct effects only: a head that later layers read gets no credit. The norm's scale is held fixed. "
        "Much of what parts add serves frequent tokens whatever the context. Tied embeddings are no chance: "
        "there the embedding writes for its own token. Tests take each row of the null for equally likely, "
        "as in a model that has learnt nothing."
    )
    needs = (
        "Sites of all that is written to the stream (embed, z, mlp_out) and final_scale; text; causal "
        "transformers with a tokenizer and uncapped logits, norms not after the sums."
    )
    kind = "data"
    Config = AttributionConfig
    draws = "n_draws"

    def refuses(self, facts: ModelFacts) -> str:
        """No text, no next token, or logits that are no sum."""
        capped = f"it caps its logits, so they are no sum of parts: {facts.described}"
        return no_next_token(facts) or (capped if facts.caps_logits else "")

    def cost(self, facts: ModelFacts, data: DataFacts, config: AttributionConfig) -> Cost:
        """Forward passes, and products with the renamed unembedding."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        n_positions = config.n_prompts * n_tokens
        n_parts = facts.n_layers * (facts.n_heads + 1 + facts.has_mlp) + 3
        forward = n_positions * 2 * facts.n_params / 1.5e10
        products = n_positions * n_parts * facts.d_model * (config.n_draws * 2 / 1.2e10 + 4e-9)
        gathered = n_positions * config.n_draws * facts.d_model * 4e-9
        names = config.n_prompts * config.n_draws * facts.d_out * 1.2e-8
        folded = facts.d_model * facts.d_out
        held = 4 * n_tokens * facts.d_model * (3 * n_parts + 2 * config.n_draws) + 12 * folded
        seconds = 0.3 + forward + products + gathered + names + folded * 5e-9
        return Cost(seconds, held + n_tokens * facts.d_out * 20 + 5e7)

    def run(
        self, model: Any, data: ProbeData, config: AttributionConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """One row for each part, for the sum of all, and for the residual."""
        from workbench.weights import effective_weights

        asked = (config.n_prompts, min(config.n_tokens, model.cfg.n_ctx), config.seed)
        tokens = data.tokens(model, *asked)
        documents = data.documents_of_tokens(model, *asked)
        weights, found = effective_weights(model), []
        unembedding = weights.W_U - weights.W_U.mean(1, keepdim=True)
        bias = weights.b_U - weights.b_U.mean()
        for done, row in enumerate(tokens):
            progress(done / len(tokens), "prompts")
            found.append(_prompt(model, weights, (unembedding, bias), row, config))
        return findings_table(_rows(found, documents, tokens.shape[1] - 1, config.seed))


def no_next_token(facts: ModelFacts) -> str:
    """Why the next token of text has no logit that is a sum of parts."""
    if facts.kind == "mlp" or not facts.is_causal or not facts.has_unembed:
        return f"it predicts no next token: {facts.described}"
    if facts.norm_position == "post":
        return f"norms after each sum: its stream is no sum of what was written: {facts.described}"
    if not facts.has_tokenizer:
        return f"it reads no text: {facts.described}"
    if facts.d_out != facts.d_vocab:
        return f"it reads {facts.d_vocab} tokens and predicts {facts.d_out}: {facts.described}"
    return "" if facts.n_ctx >= 3 else f"rows of text need 3 tokens: {facts.described}"


class Prompt(NamedTuple):
    """What the parts of one prompt add, mean over its positions."""

    parts: "Sequence[Part]"
    values: Float[np.ndarray, " part"]
    null: Float[np.ndarray, "part draw"]
    residual: float


def _prompt(
    model: Any,
    weights: "EffectiveWeights",
    readout: "tuple[Tensor, Tensor]",
    row: "Tensor",
    config: AttributionConfig,
) -> Prompt:
    import torch

    from workbench.stream.parts import Part, parts_run, written

    one = parts_run(
        model, row[None], ("z",) if any(block.has_attn for block in model.blocks) else ()
    )
    scale = one["final_scale"][0, :-1] if model.cfg.norm != "none" else 1.0
    targets, (unembedding, bias) = row[1:].cpu().numpy(), readout
    parts, vectors = zip(*written(one, weights, "head"), strict=True)
    scaled = torch.stack([vector[:-1] / scale for vector in vectors])
    direct = (scaled * unembedding[:, targets].T).sum(-1).double()
    whole = one.logits[0, :-1].double()
    aim = whole.gather(1, row[1:, None].to(whole.device))[:, 0] - whole.mean(1)
    residual = float((direct.sum(0) + bias[targets] - aim).abs().max())
    drawn = relabelled(targets, unembedding.shape[1], n_draws=config.n_draws, seed=config.seed)
    null = _renamed(scaled, unembedding, drawn)
    own_bias = bias[targets].double().mean()
    return Prompt(
        (*parts, Part("unembedding bias", "bias")),
        torch.cat([direct.mean(1), own_bias[None]]).cpu().numpy(),
        np.concatenate([null, bias.double().cpu().numpy()[drawn].mean(1)[None]]),
        residual,
    )


def _renamed(
    scaled: "Float[Tensor, 'part pos d_model']",
    unembedding: "Float[Tensor, 'd_model token']",
    drawn: Int[np.ndarray, "draw pos"],
) -> Float[np.ndarray, "part draw"]:
    """Mean over positions of every part's product with each draw's tokens."""
    rows, n_pos = unembedding.T, scaled.shape[1]
    flat = scaled.flatten(1)
    # A few draws at once: with all of them the gathered unembedding would be large.
    some = [
        flat @ rows[chosen].flatten(1).T
        for chosen in np.array_split(drawn, max(1, len(drawn) // 50))
    ]
    return np.concatenate([part.double().cpu().numpy() for part in some], axis=1) / n_pos


def _rows(
    found: Sequence[Prompt], documents: Int[np.ndarray, " prompt"], n_pos: int, seed: int
) -> Iterator[dict[str, Any]]:
    values = np.stack([prompt.values for prompt in found])
    null = np.mean([prompt.null for prompt in found], axis=0)
    common = {"n": len(found) * n_pos, "seed": seed, "unit": "logits"}
    yield {
        "measure": TOTAL,
        **beside_null(float(values.sum(1).mean()), null.sum(0)),
        **bootstrap(_by_document(values.sum(1), documents), seed=seed),
        **common,
    }
    yield {"measure": RESIDUAL, "value": max(prompt.residual for prompt in found), **common}
    for index, part in enumerate(found[0].parts):
        yield {
            "measure": "direct effect",
            "layer": part.layer,
            "head": part.head,
            "site": part.kind,
            "item": part.label,
            # What is exactly zero in every draw has no chance.
            **beside_null(float(values[:, index].mean()), null[index] if null[index].any() else ()),
            **bootstrap(_by_document(values[:, index], documents), seed=seed),
            **common,
        }


def _by_document(
    values: Float[np.ndarray, " prompt"], documents: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, " document"]:
    """Rows of one document are not independent: one mean for each."""
    return np.array([values[documents == one].mean() for one in np.unique(documents)])


PROBE = DirectLogitAttribution()
