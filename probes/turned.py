"""What heads would attend to if their queries were turned against their keys at random: a null for patterns.

    scores[i, j] = ⟨q_i R, k_j⟩ / scale,    R a random rotation of the head's dimensions, its own for every head

Queries and keys keep what the stream gave them, their lengths, their differences between positions and the
positions' own part; only which direction of the one meets which of the other is left to chance. The weights
of a model that has learnt nothing come from a distribution that is the same after any rotation, so its heads
are as likely as their turned copies: ranks among these are exact p-values (Phipson & Smyth 2010, "Permutation
p-values should never be zero"). The stream is the model's own: earlier layers are left as they are.

What is measured must be linear in the pattern, `Σ_ij pattern[i, j] w[i, j]`, or be the entropy.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.folding import score_scales
from workbench.models.protocol import Model
from workbench.rotary import rotate
from workbench.runs import Run, run
from workbench.scoring import BATCH, Progress, visible
from workbench.sites import Site

# The weights of what is measured on one prompt.
WeightsOf = Callable[[Int[Tensor, "1 pos"]], Float[Tensor, "measure query key"]]
# Patterns made at once, in numbers.
_CELLS = 1 << 23
# Beyond this, the scores that are built here are not the model's.
_TOLERANCE = 1e-3


def turned_scores(
    model: Model,
    tokens: Int[Tensor, "prompt pos"],
    weights_of: WeightsOf,
    *,
    n_draws: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[int, Float[np.ndarray, "draw head measure"]]:
    """Means over prompts of what is measured, entropy last, by layer; NaN where it is not defined.

    A layer is left out whose patterns are not made of its queries and keys alone: where a bias by distance, a
    norm or a cap stands between them.
    """
    found: dict[int, list[Float[Tensor, "draw head measure"]]] = {}
    layers = [layer for layer in range(model.cfg.n_layers) if model.n_heads_in(layer)]
    done, total = 0, len(tokens) * len(layers)
    for batch in tokens.split(BATCH):
        kept = [Site(kind, layer) for layer in layers for kind in ("q", "k", "pattern")]
        together = run(model, batch, sites=kept)
        rows = [together.row(index) for index in range(len(batch))]
        weighted = [weights_of(row.tokens.cpu()).float() for row in rows]
        for layer in layers:
            turns = rotations(n_draws, model.n_heads_in(layer), _width(rows[0], layer), seed)
            for row, weights in zip(rows, weighted, strict=True):
                q, k = _sides(model, row, layer)
                if _is_rebuilt(model, row, layer, q, k):
                    scores = _scored(model, row, (q, k), turns, weights)
                    found.setdefault(layer, []).append(scores)
                done += 1
                if progress is not None:
                    progress(done, total)
    whole = {layer: of for layer, of in found.items() if len(of) == len(tokens)}
    return {layer: torch.stack(of).nanmean(0).double().numpy() for layer, of in whole.items()}


@lru_cache(maxsize=4)
def rotations(
    n_draws: int, n_heads: int, size: int, seed: int
) -> Float[Tensor, "draw head size size"]:
    """Random rotations (and reflections), even over all of them; the same for every layer of a draw."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(n_draws, n_heads, size, size, generator=generator)
    Q, R = torch.linalg.qr(gaussian)
    # QR is unique up to signs, which are fixed here: only then are all rotations as likely (Mezzadri 2007).
    turns: Tensor = Q * R.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    return turns


def _width(row: Run, layer: int) -> int:
    return int(row[Site("q", layer)].shape[-1])


def _sides(
    model: Model, row: Run, layer: int
) -> tuple[Float[Tensor, "head query d_head"], Float[Tensor, "head key d_head"]]:
    """Queries over their scale, not yet rotated by position, and keys, which are."""
    q, k = (row[Site(kind, layer)][0].float().cpu().transpose(0, 1) for kind in ("q", "k"))
    scale = torch.tensor(score_scales(model, layer))[:, None, None]
    return q / scale, by_position(model, k).repeat_interleave(len(q) // len(k), dim=0)


def by_position(
    model: Model, x: Float[Tensor, "*batch pos d_head"]
) -> Float[Tensor, "*batch pos d_head"]:
    """Queries or keys as rotary positions turn them; as they are without."""
    if model.cfg.positions != "rotary":
        return x
    rates = model.rotary_rates.cpu()  # type: ignore[attr-defined]  # where positions are rotary
    return torch.stack([rotate(x[..., pos, :], rates, pos) for pos in range(x.shape[-2])], dim=-2)


def _pattern(
    model: Model,
    row: Run,
    q: Float[Tensor, "*batch query d_head"],
    k: Float[Tensor, "*batch key d_head"],
) -> Float[Tensor, "*batch query key"]:
    scores = by_position(model, q) @ k.mT
    return scores.masked_fill(visible(row) == 0, -torch.inf).softmax(-1)


def _is_rebuilt(model: Model, row: Run, layer: int, q: Tensor, k: Tensor) -> bool:
    own = row.pattern(layer)[0].float().cpu()
    return bool((_pattern(model, row, q, k) - own).abs().max() < _TOLERANCE)


def _scored(
    model: Model,
    row: Run,
    sides: tuple[Float[Tensor, "head query d_head"], Float[Tensor, "head key d_head"]],
    turns: Float[Tensor, "draw head size size"],
    weights: Float[Tensor, "measure query key"],
) -> Float[Tensor, "draw head measure"]:
    q, k = sides
    flat = weights.flatten(1).T
    at_once = max(1, _CELLS // (len(q) * q.shape[1] ** 2))
    scored = []
    for some in turns.split(at_once):
        pattern = _pattern(model, row, q @ some, k)
        entropy = -torch.special.xlogy(pattern, pattern).sum(-1)[..., 1:].mean(-1)
        scored.append(torch.cat([pattern.flatten(-2) @ flat, entropy[..., None]], dim=-1))
    return torch.cat(scored)
