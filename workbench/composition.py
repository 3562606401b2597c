"""Composition: how much of what one head writes does a later head read?

    score = ‖W_OV[writer] W_read‖ / (‖W_OV[writer]‖ ‖W_read‖)        Frobenius norms

where W_read is the reader's W_QK, W_QK.T or W_OV for its query, key or value input (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits", "Attention Head Composition"). Random heads score about
1/√d_model, so scores are read against chance (`workbench.composition_null`). A large score says that
*something* is passed on; the matching statistic beside it (`workbench.matching`) says whether it is the token.

With rotary positions `W_QK(Δ) = W_Q R(Δ) W_K.T`: what is read depends on the offset Δ = query - key.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.composition_null import Null, gaussian_null, rotated_null
from workbench.errors import ConfigError, UnsupportedError
from workbench.matching import (
    INPUTS,
    Input,
    Pair,
    can_match_values,
    check,
    factors,
    matching_scores,
)
from workbench.scoring import Progress
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

# Eigenvalues of one pair take a millisecond; those of all pairs of 270 heads would take minutes.
N_MATCHED = 300
Baseline = Literal["gaussian", "singular"]
PerInput = dict[Input, Float[np.ndarray, "writer reader"]]


@dataclass(frozen=True, eq=False)
class CompositionScores:
    """Every pair of heads: 0 = nothing is read, 1 = the ceiling, `null` = what chance gives.

    All matrices are `[writer reader]` over `heads`, NaN where the writer is not in an earlier layer.

    Args:
        scores: by the reader's input, Q, K or V.
        null: mean and standard deviation of the scores of random heads.
        matching: from -1 to 1, see `workbench.matching`; of the 300 highest scores of each input.
    """

    model_name: str
    heads: tuple[Head, ...]
    scores: PerInput
    null: dict[Input, Null]
    matching: PerInput
    offset: int
    baseline: Baseline
    seed: int

    @property
    def excess(self) -> PerInput:
        """Score minus chance."""
        return {through: self.scores[through] - self.null[through].mean for through in INPUTS}

    @property
    def z(self) -> PerInput:
        """Excess in standard deviations of random heads."""
        return {through: self.excess[through] / self.null[through].std for through in INPUTS}

    def table(self) -> pd.DataFrame:
        """Tidy: through, writer, reader, their layers and heads, score, chance, excess, z, matching, offset."""
        pairs = np.nonzero(_is_earlier(self.heads))
        names: dict[str, np.ndarray] = {}
        for role, index in zip(("writer", "reader"), pairs, strict=True):
            names[role] = np.array([str(head) for head in self.heads])[index]
            names[f"{role}_layer"] = np.array([head.layer for head in self.heads])[index]
            names[f"{role}_head"] = np.array([head.head for head in self.heads])[index]
        frames = []
        for through in INPUTS:
            values = {
                "score": self.scores[through],
                "chance": self.null[through].mean,
                "excess": self.excess[through],
                "z": self.z[through],
                "matching": self.matching[through],
            }
            columns = names | {name: matrix[pairs] for name, matrix in values.items()}
            frames.append(pd.DataFrame({"through": through, **columns, "offset": self.offset}))
        return pd.concat(frames, ignore_index=True)


def composition_scores(
    weights: EffectiveWeights,
    *,
    offset: int = 0,
    baseline: Baseline = "gaussian",
    n_null: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> CompositionScores:
    """Q, K and V composition of all pairs of heads, with chance and, for the strongest pairs, matching.

    Biases take no part: what they pass on does not depend on what the writer read.

    Args:
        offset: query minus key position at which queries and keys meet; matters with rotary positions.
        baseline: what chance is: "gaussian", heads of the same shapes drawn at random; or "singular", these
            heads with their own singular values, turned at random.
        n_null: random draws behind each chance level.
        progress: told after every layer how many pairs of how many are done.

    Raises:
        UnsupportedError: no head in a later layer than another, or norms after the sum.
        ConfigError: another baseline, or fewer than two draws.
    """
    _check(weights, baseline, n_null)
    heads = weights.heads
    earlier = _is_earlier(heads)
    scores = {through: np.full(earlier.shape, np.nan) for through in INPUTS}
    writers: list[Tensor] = []
    described: list[dict[str, Tensor]] = []
    n_before = 0
    for _, of_layer in groupby(weights.each_head(), key=lambda item: item[0].layer):
        layer = [head for _, head in of_layer]
        reads = {through: _read(layer, through, offset) for through in INPUTS}
        here = slice(n_before, n_before + len(layer))
        for through, read in reads.items():
            if writers:
                found = torch.cat([_scores(written, read) for written in writers])
                scores[through][:n_before, here] = found.double().cpu().numpy()
        writers.append(_written(layer))
        described.append(_describe(layer, writers[-1], reads, baseline))
        n_before += len(layer)
        if progress is not None:
            progress(int(earlier[:, :n_before].sum()), int(earlier.sum()))
    null = _null(weights.cfg.d_model, described, baseline, n_null, seed)
    matching = {through: _matching(weights, scores[through], through, offset) for through in INPUTS}
    return CompositionScores(
        weights.model_name, heads, scores, null, matching, offset, baseline, seed
    )


def _check(weights: EffectiveWeights, baseline: Baseline, n_null: int) -> None:
    if baseline not in get_args(Baseline):
        raise ConfigError(f"no baseline {baseline!r}: there are {' and '.join(get_args(Baseline))}")
    if n_null < 2:
        raise ConfigError(f"a chance level needs 2 draws or more, not {n_null}")
    check(weights, "K")
    if len({head.layer for head in weights.heads}) < 2:
        raise UnsupportedError(
            f"{weights.model_name} has no head in a later layer than another: nothing can compose"
        )


def _is_earlier(heads: tuple[Head, ...]) -> Bool[np.ndarray, "writer reader"]:
    layers = np.array([head.layer for head in heads])
    return layers[:, None] < layers[None, :]


def _written(layer: list[HeadWeights]) -> Float[Tensor, "head rank d_model"]:
    """W_OV of each head, its rows turned so that only `d_head` are not zero: no norm changes."""
    W_V = torch.stack([head.W_V for head in layer])
    return torch.linalg.qr(W_V, mode="r").R @ torch.stack([head.W_O for head in layer])


def _read(
    layer: list[HeadWeights], through: Input, offset: int
) -> Float[Tensor, "head d_model rank"]:
    """W_read of each head, its columns turned likewise."""
    sides = [factors(head, through, offset) for head in layer]
    leave = torch.stack([side.leave for side in sides])
    return torch.stack([side.enter for side in sides]) @ torch.linalg.qr(leave, mode="r").R.mT


def _scores(
    written: Float[Tensor, "writer r d_model"], read: Float[Tensor, "reader d_model s"]
) -> Float[Tensor, "writer reader"]:
    product = einsum(written, read, "writer r d_model, reader d_model s -> writer reader r s")
    ceiling = torch.outer(*(torch.linalg.matrix_norm(side) for side in (written, read)))
    return torch.linalg.matrix_norm(product) / ceiling


def _describe(
    layer: list[HeadWeights], written: Tensor, reads: dict[Input, Tensor], baseline: Baseline
) -> dict[str, Tensor]:
    """What the chance level needs to know of each head: singular values, or only sizes."""
    if baseline == "singular":
        sides = {"writer": written} | {str(through): read for through, read in reads.items()}
        return {role: torch.linalg.svdvals(side) for role, side in sides.items()}
    enter = {"writer": [head.W_V for head in layer]}
    for through in INPUTS:
        enter[through] = [factors(head, through).enter for head in layer]
    # Heads of unequal sizes are padded with columns of zeros.
    return {role: torch.stack(W).any(-2).sum(-1) for role, W in enter.items()}


def _null(
    d_model: int, described: list[dict[str, Tensor]], baseline: Baseline, n_null: int, seed: int
) -> dict[Input, Null]:
    known = {role: [row for layer in described for row in layer[role]] for role in described[0]}
    null: dict[Input, Null] = {}
    for through in INPUTS:
        if baseline == "singular":
            values = [pad_sequence(known[role], batch_first=True) for role in ("writer", through)]
            null[through] = rotated_null(values[0], values[1], d_model, n_null, seed)
        else:
            sizes = [[int(size) for size in known[role]] for role in ("writer", through)]
            null[through] = gaussian_null(d_model, sizes[0], sizes[1], n_null, seed)
    return null


def _matching(
    weights: EffectiveWeights,
    scores: Float[np.ndarray, "writer reader"],
    through: Input,
    offset: int,
) -> Float[np.ndarray, "writer reader"]:
    found = np.full(scores.shape, np.nan)
    if through == "V" and not can_match_values(weights):
        return found
    order = np.argsort(-scores, axis=None)[: min(N_MATCHED, np.isfinite(scores).sum())]
    writers, readers = np.unravel_index(order, scores.shape)
    heads = weights.heads
    pairs = [Pair(heads[w], heads[r]) for w, r in zip(writers, readers, strict=True)]
    found[writers, readers] = matching_scores(weights, pairs, through, offset=offset)
    return found
