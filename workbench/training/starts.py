"""Initial weights from which small models without LayerNorm learn circuits soon."""

import math

import torch

from workbench.models.layers import sinusoids
from workbench.models.transformer import Transformer

_EMBED_STD, _UNEMBED_STD = 0.5, 0.02
_POSITION_POWER = 0.5
# Wavelengths in positions: the shortest tells a token from its neighbour, the longest spans the context twice.
_SHORTEST = 2.5


@torch.no_grad()
def language_model_start(model: Transformer, seed: int) -> None:
    """Large embeddings, sinusoids as initial positions (they are trained on), a near-zero unembedding.

    With sinusoids a previous-token head is a rotation away. Started from noise, induction heads form
    several times later.
    """
    d_model, n_layers = model.cfg.d_model, max(1, model.cfg.n_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.embed.W_E.normal_(0, _EMBED_STD)
        model.unembed.W_U.normal_(0, _UNEMBED_STD)
        for block in model.blocks:
            for sublayer in (block.attn, block.mlp):
                if sublayer is not None:
                    std = 1 / math.sqrt(d_model)
                    sublayer.initialise(std, std / math.sqrt(2 * n_layers))
        if model.cfg.positions == "shortformer":
            n_ctx = model.cfg.n_ctx
            waves = sinusoids(n_ctx, d_model, _SHORTEST, 2.0 * n_ctx)
            model.pos_embed.W_pos.copy_(_POSITION_POWER * waves)
