"""What a head's score owes to position, and what to tokens, at each distance between query and key.

With q_i, k_j the queries and keys of tokens i, j, their means q̄, k̄ over the vocabulary, and Δ = query - key:

    score(i, j, Δ) = q̄ R(Δ) k̄ᵀ              content-free: the same for all tokens
                   + (q_i − q̄) R(Δ) k̄ᵀ       query part: which distances this query token prefers
                   + q̄ R(Δ) (k_j − k̄)ᵀ       key part: which key tokens are preferred at this distance
                   + (q_i − q̄) R(Δ) (k_j − k̄)ᵀ   pair part: which tokens match                   (all / scale)

R turns queries (rotary positions, Su et al. 2021). Over pairs of tokens drawn evenly from the vocabulary the
last three have mean zero and are uncorrelated, so their variances add up; they come from d_head x d_head
covariances, never from V x V scores. A position table (learned, sinusoidal) joins the means instead, as
`q̄ + p_i W_Q` and `k̄ + p_j W_K` without R, and every number is averaged over the query positions that have a key
at that distance.

Gauge: softmax does not see what all keys of one query share. Content-free scores of rotary models are equal up
to one constant over offsets: read differences. With a table, each query's mean over the keys that it sees is
taken away. Biases stand in q̄ and k̄. Units as in `workbench.circuits.full`; where positions join behind a norm
(shortformer), tokens are divided by their typical σ first, so that the two add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.copying import copying_score
from workbench.circuits.factors import (
    TABLES,
    check_distance,
    check_positions,
    check_token_circuits,
    keys,
    of_head,
    own_scale,
    qk_unit,
    queries,
    sorted_eigenvalues,
)
from workbench.errors import ConfigError, UnsupportedError
from workbench.rotary import rotate
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

DEFAULT_REACH = 64
Row = dict[str, float | int]


@dataclass(frozen=True, eq=False)
class OffsetScores:
    """One head's score at each distance, taken apart into position and tokens."""

    label: str
    model_name: str
    frame: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Tidy: label, offset, content_free, spread, query_std, key_std, pair_std, diagonal, matching, unit.

        content_free is the score that every pair of tokens has; spread its standard deviation over query
        positions (0 with rotary positions, which know distances only). query_std, key_std and pair_std are
        standard deviations of the other parts over pairs of tokens. diagonal is the mean score of a token at
        its own copy, relative to the mean key; matching is Σ Re λ / Σ |λ| of the token circuit. n_positions
        counts the query positions behind a row.
        """
        return self.frame.copy()


@dataclass(frozen=True)
class _Tokens:
    """Means, covariances and `Σ (k − k̄)ᵀ (q − q̄) / V` of a head's queries and keys, in float64."""

    mean_q: Tensor
    mean_k: Tensor
    cov_q: Tensor
    cov_k: Tensor
    cross: Tensor


def score_by_offset(
    weights: EffectiveWeights, head: Head | HeadWeights, offsets: Sequence[int] | None = None
) -> OffsetScores:
    """A head's scores at each offset (query position minus key position), by what they are due to.

    Args:
        offsets: default the first 64.

    Raises:
        SiteError: no such head.
        ConfigError: no offset at all, or one that cannot occur.
        UnsupportedError: a post-norm model, no positions, or positions of an unknown kind (ALiBi).
    """
    check_token_circuits(weights)
    check_positions(weights)
    if weights.cfg.positions == "none":
        raise UnsupportedError(
            f"{weights.model_name} has no positions: its scores are the same at every offset (qk_circuit)"
        )
    chosen = of_head(weights, head)
    asked = list(range(min(DEFAULT_REACH, weights.cfg.n_ctx))) if offsets is None else list(offsets)
    if not asked:
        raise ConfigError("no offsets given: ask for at least one, or leave them out")
    for offset in asked:
        check_distance(weights, offset)
    tokens = _token_moments(weights, chosen)
    has_table = weights.cfg.positions in TABLES
    rows_of = _table_rows if has_table else _rotary_rows
    rows = rows_of(weights, chosen, tokens, asked)
    unit = (
        qk_unit(weights, "position", "position")
        if has_table
        else qk_unit(weights, "token", "token")
    )
    frame = pd.DataFrame(rows).assign(unit=unit)
    frame.insert(0, "label", chosen.label)
    return OffsetScores(chosen.label, weights.model_name, frame)


def _token_moments(weights: EffectiveWeights, head: HeadWeights) -> _Tokens:
    sigma = own_scale(weights) if weights.cfg.positions == "shortformer" else 1.0
    q = queries(weights, head, "token").double() / sigma
    # The scale goes to the keys, once for all parts.
    k = keys(weights, head, "token").double() / (sigma * head.scale)
    mean_q, mean_k = q.mean(0), k.mean(0)
    q, k = q - mean_q, k - mean_k
    return _Tokens(mean_q, mean_k, q.T @ q / len(q), k.T @ k / len(k), k.T @ q / len(q))


def _rotary_rows(
    weights: EffectiveWeights, head: HeadWeights, tokens: _Tokens, offsets: Sequence[int]
) -> list[Row]:
    assert head.rates is not None
    rows = []
    for offset in offsets:
        mean_q, cross, half = (
            rotate(x, head.rates, offset) for x in (tokens.mean_q, tokens.cross, tokens.cov_q)
        )
        turned = _Tokens(
            mean_q, tokens.mean_k, rotate(half.T, head.rates, offset), tokens.cov_k, cross
        )
        rows.append({"offset": offset} | _parts(turned, mean_q[None], tokens.mean_k[None]))
    return rows


def _table_rows(
    weights: EffectiveWeights, head: HeadWeights, tokens: _Tokens, offsets: Sequence[int]
) -> list[Row]:
    q = queries(weights, head, "position").double() + tokens.mean_q
    k = keys(weights, head, "position").double() / head.scale
    n_pos = len(k)
    seen = k.mean(0).expand_as(k)
    if weights.cfg.causal:
        seen = k.cumsum(0) / torch.arange(1, n_pos + 1, device=k.device)[:, None]
    rows = []
    for offset in offsets:
        at = torch.arange(max(0, offset), n_pos + min(0, offset), device=k.device)
        rows.append({"offset": offset} | _parts(tokens, q[at], k[at - offset] - seen[at]))
    return rows


def _parts(tokens: _Tokens, q: Float[Tensor, "pos d_head"], k: Float[Tensor, "pos d_head"]) -> Row:
    """One row, from what is content-free on each side at every query position."""
    content_free = (q * k).sum(-1)
    query_variance = ((k @ tokens.cov_q) * k).sum(-1).mean()
    key_variance = ((q @ tokens.cov_k) * q).sum(-1).mean()
    pair_variance = (tokens.cov_q * tokens.cov_k).sum()
    return {
        "content_free": float(content_free.mean()),
        "spread": float(content_free.std(correction=0)),
        "query_std": float(query_variance.clamp(min=0).sqrt()),
        "key_std": float(key_variance.clamp(min=0).sqrt()),
        "pair_std": float(pair_variance.clamp(min=0).sqrt()),
        "diagonal": float(tokens.cross.trace()),
        "matching": copying_score(sorted_eigenvalues(tokens.cross)),
        "n_positions": len(content_free),
    }
