"""The positional kernel of a head: how attention falls with distance when there is nothing but position.

    kernel[offset] = mean_i pattern[i, i - offset]

Measured on distinct random tokens, so that matching content cannot pass for position.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.protocol import Model
from workbench.prompts import check_settings, random_tokens, reach
from workbench.scoring import Progress, pattern_rows, summary, uniform


def positional_kernel(
    model: Model,
    *,
    n_prompts: int = 16,
    n_pos: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Mean attention at each distance back.

    Tidy: layer, head, offset (tokens back; 0 is the query itself, negative looks ahead, which only
    bidirectional models do), value, low, high, chance, n (prompts), seed, unit, cells (queries that have a key
    at that distance: the farthest offsets rest on a single one).

    Raises:
        UnsupportedError: a context too short, a model without attention, or settings that cannot be meant.
    """
    check_settings(n_prompts, n_pos, seed)
    length = n_pos or min(reach(model), 64)
    tokens = random_tokens(model, n_prompts, length, seed)
    rows = pattern_rows(model, tokens, (length,) * n_prompts, progress)
    offsets = range(0 if model.cfg.causal else 1 - length, length)
    names = [str(offset) for offset in offsets]
    chance = np.stack([_diagonal_means(uniform(row), offsets)[0] for row in rows])
    frames = []
    for layer in sorted({site.layer for site in rows[0].sites if site.layer is not None}):
        values = np.stack([_diagonal_means(row.pattern(layer)[0], offsets) for row in rows])
        frames.append(summary(values, chance, names, layer, seed))
    table = pd.concat(frames, ignore_index=True).rename(columns={"behaviour": "offset"})
    offset = table["offset"].astype(int)
    return table.assign(offset=offset, unit="attention", cells=length - offset.abs())


def _diagonal_means(
    pattern: Float[Tensor, "head query key"], offsets: range
) -> Float[np.ndarray, "head offset"]:
    means = [pattern.float().diagonal(-offset, 1, 2).mean(-1) for offset in offsets]
    return torch.stack(means, dim=-1).cpu().numpy()
