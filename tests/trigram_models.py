"""A head that raises chosen skip-trigrams and nothing else, and a slow ranking of all triples."""

import torch

from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer


def planted(tokenizer, pairs, strength=8.0):
    """One layer, two heads; head 0 raises source … destination → out for each (source, destinations, outs).

    The stream holds the token in its first 18 dimensions and what is predicted in the others. Head 0 keeps one
    dimension for each source. Head 1 does nothing.
    """
    config = TransformerConfig(
        order="s", d_model=36, n_heads=2, d_vocab=18, n_ctx=24, positions="none", d_head=4
    )
    model = Transformer(config, tokenizer, name="planted").eval()
    id_of = tokenizer.backend.token_to_id
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.embed.W_E[:, :18] = torch.eye(18)
        model.unembed.W_U[18:] = torch.eye(18)
        attn = model.blocks[0].attn
        for dim, (source, destinations, outs) in enumerate(pairs):
            attn.W_K[0, id_of(source), dim] = 2 * strength
            attn.W_V[0, id_of(source), dim] = 1.0
            for token in destinations:
                attn.W_Q[0, id_of(token), dim] = 1.0
            for token in outs:
                attn.W_O[0, dim, 18 + id_of(token)] = strength
    return model


def slow_scores(attention, output):
    """Scores `[source, destination, out]` of all triples, from dense QK `[query key]` and OV `[source out]`."""
    return attention.T.clamp(min=0)[:, :, None] * output.clamp(min=0)[:, None, :]


def slow_best(scores, k, per_source):
    """The best scores, at most `per_source` of each source."""
    best = scores.flatten(1).sort(dim=1, descending=True).values[:, :per_source].flatten()
    return best[best > 0].sort(descending=True).values[:k]
