"""What the model loses without a head: each head's z replaced by its mean, everything behind it computed anew.

    z[query, head] ← mean z[·, head]          over prompts and positions, the first position left as it is
    effect[head]   = mean over queries of  log p(next) - log p_ablated(next)          nats
    kl[head]       = mean over queries of  KL(p ‖ p_ablated)                          nats
    null[draw]     = the effect with tokens renamed: next → π(next), π one permutation of the vocabulary

A renaming keeps how often which token stands where, and takes away what the model could know of it. Mean
ablation and its reasons: Wang et al. 2022, "Interpretability in the Wild", section 2; it still overstates what
a head does where what is behind relies on its usual variation.

All heads of a layer are one batch, and only the layers from theirs on are computed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.blocks import Blocks
from workbench.models.protocol import HookFn, Model
from workbench.runs import run
from workbench.scoring import Progress
from workbench.sites import Head, Site

# Logits of several heads at once: as many heads as this has room for.
MAX_BYTES = 400_000_000
MEAN_ROWS = 8


@dataclass(frozen=True, eq=False)
class HeadEffects:
    """Each head's effect on the loss.

    Args:
        effect: rise of the loss, nats.
        kl: how far the predictions move, nats.
        null: rise of the loss under renamings of the tokens, mean over prompts.
        loss: of the model as it is, nats.
    """

    model_name: str
    heads: tuple[Head, ...]
    effect: Float[np.ndarray, "prompt head"]
    kl: Float[np.ndarray, "prompt head"]
    null: Float[np.ndarray, "draw head"]
    loss: Float[np.ndarray, " prompt"]
    seed: int

    def table(self) -> pd.DataFrame:
        """Tidy: layer head effect null_mean null_std kl unit n seed."""
        return pd.DataFrame(
            {
                "layer": [head.layer for head in self.heads],
                "head": [head.head for head in self.heads],
                "effect": self.effect.mean(0),
                "null_mean": self.null.mean(0),
                "null_std": self.null.std(0, ddof=1),
                "kl": self.kl.mean(0),
                "unit": "nats",
                "n": len(self.effect),
                "seed": self.seed,
            }
        )


def ablation_refusal(model: Model) -> str:
    """Why no head of this model can be left out; empty where they can."""
    cfg = model.cfg
    if not any(model.n_heads_in(layer) for layer in range(cfg.n_layers)):
        return "has no attention"
    if not cfg.causal or not cfg.d_out:
        return "predicts no next token"
    if cfg.norm_position == "post":
        return "normalises after each sum: its stream cannot be read as logits"
    if cfg.d_out != cfg.d_vocab:
        return f"reads {cfg.d_vocab} tokens and writes {cfg.d_out}"
    return ""


def head_effects(
    model: Model,
    tokens: Int[Tensor, "prompt pos"],
    *,
    n_draws: int = 199,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadEffects:
    """The effect of every head, one at a time, on prompts of equal length.

    Args:
        n_draws: renamings of the vocabulary for the null, at least 2.
        progress: told after every prompt how many of how many are done.

    Raises:
        UnsupportedError: no heads, no next token, norms after the sum, or prompts of fewer than three tokens.
    """
    if reason := ablation_refusal(model):
        raise UnsupportedError(f"no effects of heads on the loss: {model.name} {reason}")
    if tokens.shape[1] < 3:
        raise UnsupportedError(f"prompts have three tokens or more, not {tokens.shape[1]}")
    if n_draws < 2:
        raise UnsupportedError(f"a null is drawn at least twice, not {n_draws} times")
    means = _mean_z(model, tokens)
    rng = np.random.default_rng(seed)
    renamed = np.stack([rng.permutation(model.cfg.d_vocab) for _ in range(n_draws)])
    names = torch.from_numpy(renamed)
    # What blocks are given beside the stream depends on the prompts' length alone.
    blocks = Blocks(model, tokens[:1])
    losses, found = [], []
    for index, row in enumerate(tokens):
        loss, measured = _one_prompt(blocks, row[None], means, names)
        losses.append(loss)
        found.append(measured)
        if progress is not None:
            progress(index + 1, len(tokens))
    heads = tuple(Head(layer, head) for layer, kept in means.items() for head in range(len(kept)))
    effect, kl, null = (np.stack([row[part] for row in found]) for part in range(3))
    return HeadEffects(model.name, heads, effect, kl, null.mean(0).T, np.array(losses), seed)


def _mean_z(
    model: Model, tokens: Int[Tensor, "prompt pos"]
) -> dict[int, Float[Tensor, "head d_head"]]:
    layers = [layer for layer in range(model.cfg.n_layers) if model.n_heads_in(layer)]
    total = dict.fromkeys(layers, torch.zeros(()))
    for rows in tokens.split(MEAN_ROWS):
        some = run(model, rows, sites=["z"])
        for layer in layers:
            total[layer] = total[layer] + some[Site("z", layer)][:, 1:].mean(1).sum(0)
    return {layer: summed / len(tokens) for layer, summed in total.items()}


def _one_prompt(
    blocks: Blocks,
    tokens: Int[Tensor, "1 pos"],
    means: dict[int, Float[Tensor, "head d_head"]],
    names: Int[Tensor, "draw d_vocab"],
) -> tuple[float, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Loss; effect `[head]`, divergence `[head]` and null `[head draw]` of one prompt."""
    one = run(blocks.model, tokens, sites=["resid_pre"])
    # The first prediction is made by a position that is never changed itself.
    clean = one.logits[0, 1:-1].log_softmax(-1)
    likely = clean.exp()
    entropy = (likely * clean).sum(-1)
    following = tokens[0, 2:]
    index = torch.cat([following[None], names[:, following]])
    parts: list[list[np.ndarray]] = [[], [], []]
    for layer, mean in means.items():
        stream = one[Site("resid_pre", layer)]
        room = max(1, MAX_BYTES // (8 * max(1, clean.numel())))
        for heads in torch.arange(len(mean)).split(room):
            logits = _without(blocks, layer, stream, mean, heads)
            total = logits.logsumexp(-1, keepdim=True)
            lost = (
                clean.gather(1, index.T)
                + total
                - logits.gather(2, index.T.expand(len(heads), -1, -1))
            )
            picked = lost.mean(1)
            # Σ p (log p - logits) + total, without a tensor of the differences.
            moved = torch.einsum("qv,hqv->hq", likely, logits)
            kl = (entropy + total[..., 0] - moved).mean(-1)
            for kept, numbers in zip(parts, (picked[:, 0], kl, picked[:, 1:]), strict=True):
                kept.append(numbers.double().cpu().numpy())
    loss = -float(clean.gather(1, following[:, None]).mean())
    return loss, (np.concatenate(parts[0]), np.concatenate(parts[1]), np.concatenate(parts[2]))


def _without(
    blocks: Blocks,
    layer: int,
    stream: Float[Tensor, "1 pos d_model"],
    mean: Float[Tensor, "head d_head"],
    heads: Int[Tensor, " chosen"],
) -> Float[Tensor, "chosen query d_vocab"]:
    """The logits without each of some heads of a layer, where a next token is known."""
    model = blocks.model
    hook = (model.site_hook(Site("z", layer)), _replaced(mean, heads))
    with model.lock, torch.no_grad(), model.hooks([hook]):
        return blocks.onward(layer, stream.expand(len(heads), -1, -1), slice(1, -1))


def _replaced(mean: Float[Tensor, "head d_head"], heads: Int[Tensor, " chosen"]) -> HookFn:
    rows = torch.arange(len(heads))

    def replace(activation: Tensor, hook: object) -> Tensor:
        changed = activation.clone()
        changed[rows, 1:, heads] = mean[heads][:, None].to(changed)
        return changed

    return replace
