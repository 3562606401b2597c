"""What heads do to the logits themselves: to the next token's, and to those of the tokens they attend to.

A head's direct logits at a query are what it wrote there, read by the unembedding through the final norm as it
stood, relative to their mean over the vocabulary:

    direct[query, token] = ⟨result[query], W_U[:, token] - mean⟩ / σ[query]

    direct effect   mean of direct[query, next token]
    copying         (a - m) / (a + m) with raised = max(direct, 0): a sums pattern[query, key] * raised over
                    keys and queries, m over queries the mean of raised over all the keys that they see

So copying is 1 where only attended tokens are raised, -1 where they never are, and 0 for a head that attends to
all alike. It is the ratio of "raised logits" of Olsson et al. 2022 ("In-context Learning and Induction Heads",
copying score) with the tokens of the prompt as the sample, on the scale that they use. A soft cap of the logits
is left out.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.heads.behaviours import induction
from workbench.models.protocol import Model
from workbench.runs import Run, run
from workbench.scoring import Progress, summary, visible
from workbench.sites import Site
from workbench.stream.parts import after_scale
from workbench.weights import AttentionWeights, EffectiveWeights, effective_weights

UNITS = {"copying": "share", "direct effect": "logits"}


def direct_effects(
    model: Model,
    tokens: Int[Tensor, "prompt pos"],
    lengths: Sequence[int],
    *,
    only_repeats: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Each head's copying (-1 to 1) and direct effect (logits) on prompts; 0 is chance for both.

    Tidy: layer, head, behaviour, value, low, high, chance, unit, n (prompts), seed. Intervals are 95 %,
    bootstrapped over prompts.

    Args:
        only_repeats: take the direct effect only where the next token is the one that followed before.
        progress: told after every prompt how many of how many are done.

    Raises:
        UnsupportedError: as `check`.
    """
    check(model)
    weights = effective_weights(model)
    held = {
        layer: attention
        for layer in range(model.cfg.n_layers)
        if (attention := weights.attention(layer)) is not None
    }
    values: list[list[np.ndarray]] = []
    chance = np.zeros((len(lengths), len(UNITS)))
    mean = weights.W_U.mean(1, keepdim=True)
    for index, length in enumerate(lengths):
        one = run(model, tokens[index : index + 1, :length], sites=_sites(model))
        scored = _scored(one.tokens, only_repeats)
        chance[index, 1] = 0.0 if scored.any() else np.nan
        unembedding = weights.W_U[:, one.tokens[0]] - mean
        values.append(
            [
                _measures(one, _direct(one, weights, attention, layer, unembedding), layer, scored)
                for layer, attention in held.items()
            ]
        )
        if progress is not None:
            progress(index + 1, len(lengths))
    by_layer = zip(held, zip(*values, strict=True), strict=True)
    frames = [summary(np.stack(rows), chance, list(UNITS), layer, seed) for layer, rows in by_layer]
    table = pd.concat(frames, ignore_index=True)
    table.insert(7, "unit", table["behaviour"].map(UNITS))
    return table


def check(model: Model) -> None:
    """Refuse models whose heads write no logits of their own.

    Raises:
        UnsupportedError: no heads, norms after the sum, no next token, or other tokens than are read.
    """
    if reason := refusal(model):
        raise UnsupportedError(f"no direct effects of heads: {model.name} {reason}")


def refusal(model: Model) -> str:
    """Why heads of this model have no direct effects; empty where they have."""
    cfg = model.cfg
    if not any(model.n_heads_in(layer) for layer in range(cfg.n_layers)):
        return "has no attention"
    if cfg.norm_position == "post":
        return "normalises after each sum, so no head's output reaches the logits by itself"
    if cfg.d_out != cfg.d_vocab:
        return f"reads {cfg.d_vocab} tokens and writes {cfg.d_out}"
    return "" if cfg.causal else "looks ahead, so there is no next token to predict"


def _sites(model: Model) -> list[str]:
    sites = ["pattern", "z"]
    if model.cfg.norm != "none":
        sites.append("final_scale")
    return sites


def _scored(tokens: Int[Tensor, "1 pos"], only_repeats: bool) -> Bool[Tensor, " query_but_last"]:
    """The queries whose next token is known, or was to be expected."""
    if not only_repeats:
        return torch.ones(tokens.shape[1] - 1, dtype=torch.bool)
    tokens = tokens.cpu()
    followed = induction(tokens)[0, :-1]
    return (followed & (tokens[0] == tokens[0, 1:, None])).any(-1)


def _measures(
    one: Run,
    direct: Float[Tensor, "head query key"],
    layer: int,
    scored: Bool[Tensor, " query_but_last"],
) -> Float[np.ndarray, "head measure"]:
    pattern, seen = one.pattern(layer)[0].to(direct), visible(one).to(direct)
    raised = direct.clamp(min=0)
    # The first query sees one key only, which tells nothing.
    attended = (pattern * raised).sum(-1)[:, 1:].sum(-1)
    average = ((seen * raised).sum(-1) / seen.sum(-1))[:, 1:].sum(-1)
    total = attended + average
    # Heads that raise none of the tokens here copy as much as chance does.
    copying = torch.where(total > 0, (attended - average) / total, torch.zeros_like(total))
    following = direct.diagonal(1, 1, 2)[:, scored.to(direct.device)].mean(-1)
    return torch.stack([copying, following], dim=-1).double().cpu().numpy()


def _direct(
    one: Run,
    weights: EffectiveWeights,
    attention: AttentionWeights,
    layer: int,
    unembedding: Float[Tensor, "d_model key"],
) -> Float[Tensor, "head query key"]:
    """Direct logits of every key's token at every query."""
    z = one[Site("z", layer)][0] - attention.b_V
    read = attention.W_O @ unembedding
    direct = einsum(z, read, "query head d_head, head d_head key -> head query key")
    if weights.cfg.norm != "none":
        direct = direct / one[Site("final_scale")][0]
    after = after_scale(one, weights, layer)
    return direct if after is None else direct / after
