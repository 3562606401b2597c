"""Composition: how much of what one head writes does a later head read?

    score = ‖W_OV[writer] W_read‖ / (‖W_OV[writer]‖ ‖W_read‖)        Frobenius norms

where W_read is the reader's W_QK, W_QK.T or W_OV for its query, key or value input (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits", "Attention Head Composition"). Random heads score about
1/√d_model, so scores are read against chance (`workbench.composition.null`). A large score says that
*something* is passed on; the matching statistic beside it (`workbench.composition.matching`) says whether it
is the token.

With rotary positions `W_QK(Δ) = W_Q R(Δ) W_K.T`: what is read depends on the offset Δ = query - key.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.composition.matching import (
    INPUTS,
    Factors,
    Input,
    Matching,
    Pair,
    can_match_values,
    check,
    factors,
)
from workbench.composition.null import Null, gaussian_null, rotated_null
from workbench.errors import ConfigError, UnsupportedError
from workbench.scoring import Progress
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

# Eigenvalues of one pair take a millisecond; those of all pairs of 270 heads would take minutes.
N_MATCHED = 300
N_MATCHING_NULL = 50
TRIANGLE_BYTES = 250e6
Baseline = Literal["gaussian", "singular"]
PerInput = dict[Input, Float[np.ndarray, "writer reader"]]


@dataclass(frozen=True, eq=False)
class CompositionScores:
    """Every pair of heads: 0 = nothing is read, 1 = the ceiling, `null` = what chance gives.

    All matrices are `[writer reader]` over `heads`, NaN where the writer is not in an earlier layer.

    Args:
        scores: by the reader's input, Q, K or V.
        null: mean and standard deviation of the scores of random heads.
        matching: from -1 to 1, see `workbench.composition.matching`; of the 300 highest scores of each input.
        matching_std: how far the matching of random heads scatters around zero.
    """

    model_name: str
    heads: tuple[Head, ...]
    scores: PerInput
    null: dict[Input, Null]
    matching: PerInput
    matching_std: dict[Input, float]
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
        """Tidy, one row per input and pair: through, writer, writer_layer, writer_head, reader, reader_layer,

        reader_head, score, chance, excess, z, matching, matching_std, offset.
        """
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
            columns: dict[str, Any] = {name: matrix[pairs] for name, matrix in values.items()}
            columns |= {"matching_std": self.matching_std[through], "offset": self.offset}
            frames.append(pd.DataFrame({"through": through, **names, **columns}))
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
    scores = pair_scores(weights, offset, progress)
    null = _null(weights, offset, baseline, n_null, seed)
    matching, spread = _matching(weights, scores, offset, seed)
    return CompositionScores(
        model_name=weights.model_name,
        heads=weights.heads,
        scores=scores,
        null=null,
        matching=matching,
        matching_std=spread,
        offset=offset,
        baseline=baseline,
        seed=seed,
    )


def _check(weights: EffectiveWeights, baseline: str, n_null: int) -> None:
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


def pair_scores(
    weights: EffectiveWeights, offset: int = 0, progress: Progress | None = None
) -> PerInput:
    """The scores alone, `[writer reader]` by the reader's input; NaN where the writer is not earlier.

    Raises:
        UnsupportedError: norms after the sum.
    """
    check(weights, "K")
    earlier = _is_earlier(weights.heads)
    scores: PerInput = {through: np.full(earlier.shape, np.nan) for through in INPUTS}
    done = 0
    for block in _blocks(weights):
        written = torch.empty(0)
        for start, layer in _layers(weights):
            readers = slice(start, start + len(layer))
            writers = slice(block.start, min(start, block.stop))
            n_writers = writers.stop - writers.start
            if n_writers > 0:
                for through in INPUTS:
                    read = _triangle([factors(head, through, offset) for head in layer])
                    square = (written[:n_writers] @ read.mT).clamp(min=0)
                    scores[through][writers, readers] = square.double().sqrt().cpu().numpy()
                done += n_writers * len(layer)
                if progress is not None:
                    progress(done, int(earlier.sum()))
            if block.start <= start < block.stop:
                own = _triangle([Factors(head.W_O.mT, head.W_V) for head in layer])
                if start == block.start:
                    written = own.new_empty(len(block), own.shape[1])
                written[start - block.start : start - block.start + len(layer)] = own
    return scores


def _layers(weights: EffectiveWeights) -> Iterator[tuple[int, list[HeadWeights]]]:
    """The heads of each layer, and how many there are in the layers before."""
    start = 0
    for _, heads in groupby(weights.each_head(), key=lambda item: item[0].layer):
        layer = [head for _, head in heads]
        yield start, layer
        start += len(layer)


def _blocks(weights: EffectiveWeights) -> Iterator[range]:
    """Runs of writers, whole layers each, whose triangles fit the memory set aside."""
    of_one = weights.cfg.d_model**2 * weights.W_E.element_size() * 9 // 16
    start = stop = 0
    for _, layer in groupby(weights.heads, key=lambda head: head.layer):
        n_heads = len(list(layer))
        if stop > start and (stop + n_heads - start) * of_one > TRIANGLE_BYTES:
            yield range(start, stop)
            start = stop
        stop += n_heads
    yield range(start, stop)


def _triangle(heads: list[Factors]) -> Float[Tensor, "head pair"]:
    """A A.T of `A = enter @ leave.T`, over its trace: ⟨A A.T, B B.T⟩ is the squared score of two heads.

    It is symmetric, so only blocks from the diagonal on are made, those beyond it times √2: then dot products
    of these rows are those of the whole matrices.
    """
    enter = torch.stack([head.enter for head in heads])
    leave = torch.stack([head.leave for head in heads])
    inner, d_model = leave.mT @ leave, enter.shape[1]
    left, step = enter @ inner, -(-d_model // 8)
    rows = []
    for start in range(0, d_model, step):
        block = left[:, start : start + step] @ enter[:, start:].mT
        block[:, :, step:] *= math.sqrt(2)
        rows.append(block.flatten(1))
    trace = (inner * (enter.mT @ enter)).sum((1, 2))
    return torch.cat(rows, dim=1) / trace[:, None]


def _null(
    weights: EffectiveWeights, offset: int, baseline: Baseline, n_null: int, seed: int
) -> dict[Input, Null]:
    roles: dict[str, list[Tensor]] = {role: [] for role in ("writer", *INPUTS)}
    null: dict[Input, Null] = {}
    for _, head in weights.each_head():
        roles["writer"].append(_described(Factors(head.W_O.mT, head.W_V), baseline))
        for through in INPUTS:
            roles[through].append(_described(factors(head, through, offset), baseline))
    d_model = weights.cfg.d_model
    for through in INPUTS:
        written, read = roles["writer"], roles[through]
        if baseline == "singular":
            spectra = [pad_sequence(values, batch_first=True) for values in (written, read)]
            null[through] = rotated_null(spectra[0], spectra[1], d_model, n_null, seed)
        else:
            sizes = [[int(size) for size in role] for role in (written, read)]
            null[through] = gaussian_null(sizes[0], sizes[1], d_model, n_null, seed)
    return null


def _described(head: Factors, baseline: Baseline) -> Tensor:
    """What chance depends on: a head's singular values, or only its size without padding."""
    if baseline == "gaussian":
        return head.leave.any(0).sum()
    R_enter, R_leave = (torch.linalg.qr(side, mode="r").R for side in head)
    return torch.linalg.svdvals(R_enter @ R_leave.mT)


def _matching(
    weights: EffectiveWeights, scores: PerInput, offset: int, seed: int
) -> tuple[PerInput, dict[Input, float]]:
    shared, heads = Matching(weights), weights.heads
    found: PerInput = {}
    for through, score in scores.items():
        found[through] = np.full(score.shape, np.nan)
        if through == "V" and not can_match_values(weights):
            continue
        order = np.argsort(-score, axis=None)[: min(N_MATCHED, int(np.isfinite(score).sum()))]
        cells = np.unravel_index(order, score.shape)
        pairs = [Pair(heads[w], heads[r]) for w, r in zip(*cells, strict=True)]
        found[through][cells] = shared.scores(pairs, through, offset)
    size = next(weights.each_head())[1].W_V.shape[1]
    # Queries and keys read the same tokens, so random heads scatter alike through both.
    of_keys = float(shared.null("K", size, N_MATCHING_NULL, seed).std(ddof=1))
    of_values = float("nan")
    if can_match_values(weights):
        of_values = float(shared.null("V", size, N_MATCHING_NULL, seed).std(ddof=1))
    return found, {"Q": of_keys, "K": of_keys, "V": of_values}
