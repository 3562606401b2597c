"""Rotary positions (Su et al. 2021, "RoFormer"): what a turn of queries against keys does to weights.

    score[i, j] = ⟨R(i) q, R(j) k⟩ = ⟨R(Δ) q, k⟩,   Δ = i - j    so    W_QK(Δ) = W_Q R(Δ) W_K.T

Dimension d of a head turns together with d + rotary_dim/2, as in Llama; dimensions beyond `rotary_dim` stay.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def rotate(
    x: Float[Tensor, "*rows d_head"], rates: Float[Tensor, " pair"], offset: float | int
) -> Float[Tensor, "*rows d_head"]:
    """Row vectors turned forward by `offset` positions; lengths stay.

    Args:
        rates: radians per position of each pair of dimensions.
    """
    angles = rates.double() * offset
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    n_pairs = len(rates)
    first, second = x[..., :n_pairs], x[..., n_pairs : 2 * n_pairs]
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned, x[..., 2 * n_pairs :]], dim=-1)
