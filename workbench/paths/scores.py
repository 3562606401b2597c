"""Why a head looks where it looks: one score before softmax as an exact sum over pairs of parts.

    score[i, j] = Σ_p Σ_q c[i, j] ⟨query_p[i], key_q[j]⟩ / scale        p, q: sources, heads, MLPs, b_Q, b_K

with the multipliers of this pass held fixed (`workbench.paths.query_key`). With every part of a side either
direct (a source: embedding, position, bias) or written by a head or an MLP, the four kinds of pairs are

    direct    neither side was written by a component         Q      the query alone was: Q-composition
    both      both sides were                                 K      the key alone was: K-composition

Softmax does not see what is the same for all keys. Why a head looks at one key rather than at others is a
difference of scores: `versus` another key, or the mean of the other visible keys.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Path Expansion of Attention Scores
QK Circuit".)
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import ConfigError, PromptError
from workbench.paths.directions import Direction
from workbench.paths.network import FrozenNetwork
from workbench.paths.pairs import MEAN, SIDES, UNIT, ScoreParts, Shares, Versus, label_of
from workbench.paths.query_key import LOWEST_SCORE, QueryKey, query_key
from workbench.runs import Run
from workbench.sites import Head, Site
from workbench.stream.parts import as_numpy

__all__ = ["QueryKey", "ScoreParts", "Shares", "query_key", "score_direction", "score_parts"]

# Rounding of patterns makes constants differ between keys by about this much of their size.
_SAME = 1e-5


def score_parts(
    frozen: FrozenNetwork,
    head: Head | QueryKey,
    query: int,
    key: int,
    *,
    versus: Versus = None,
) -> ScoreParts:
    """A head's score of one key, taken apart into pairs of what wrote the query and what wrote the key.

    Args:
        head: or what `query_key` made of it, which saves a pass where a head is asked for many scores.
        query: and `key`: positions; negative ones count from the end.
        versus: another key, or "mean" for the other visible keys, whose score is taken off.

    Raises:
        SiteError: no such head.
        PromptError: no such position, or a key that the query does not see.
        UnsupportedError: a head whose scores have no exact form here.
    """
    maps = head if isinstance(head, QueryKey) else query_key(frozen, head)
    query, key, versus, weights = _contrast(maps, query, key, versus)
    queries, keys = maps.queries[1][:, query], maps.keys[1]
    seen = weights * maps.kept[query]
    values = queries @ torch.einsum("p,qpd->qd", seen, keys).mT
    total = _measured(maps.scores[query], weights)
    return ScoreParts(
        model_name=frozen.model.name,
        str_tokens=frozen.str_tokens,
        head=maps.head,
        query=query,
        key=key,
        versus=versus,
        query_parts=maps.queries[0],
        key_parts=maps.keys[0],
        values=as_numpy(values),
        is_constant=_is_constant(maps, query),
        total=total,
        residual=float(values.sum()) - total,
        attention=float(frozen.run.pattern(maps.head.layer)[0, maps.head.head, query, key]),
    )


def score_direction(
    frozen: FrozenNetwork,
    head: Head | QueryKey,
    query: int,
    key: int,
    *,
    side: str = "key",
    versus: Versus = None,
) -> Direction:
    """A score as a linear question to the stream that one side reads, the other side held whole.

    Args:
        side: the one that is taken apart: "key" or "query".

    Raises:
        ConfigError: another side.
        SiteError, PromptError, UnsupportedError: as `score_parts`.
    """
    if side not in SIDES:
        raise ConfigError(f"no side {side[:40]!r} of a score: there are {', '.join(SIDES)}")
    maps = head if isinstance(head, QueryKey) else query_key(frozen, head)
    query, key, versus, weights = _contrast(maps, query, key, versus)
    seen = weights * maps.kept[query]
    if side == "key":
        asked = seen[:, None] * maps.queries[1][:, query].sum(0)
        mapped = maps.key
    else:
        asked = torch.zeros_like(maps.queries[1][0])
        asked[query] = torch.einsum("p,qpd->d", seen, maps.keys[1])
        mapped = maps.query
    constants = torch.stack(list(mapped.constants(len(asked)).values())).sum(0)
    site, place = Site("scores", maps.head.layer), maps.head.head

    def measure(run: Run) -> float:
        return _measured(run[site][0, place, query].double(), weights)

    return Direction(
        label=f"{label_of(maps.head, query, key, versus)}, {side} side",
        vector=mapped.transpose(asked).to(frozen.stream.dtype),
        bias=float((asked * constants).sum()),
        total=_measured(maps.scores[query], weights),
        pos=key if side == "key" else query,
        measure=measure,
        sites=(site,),
        unit=UNIT,
        n_steps=maps.level,
    )


def _contrast(
    maps: QueryKey, query: int, key: int, versus: Versus
) -> tuple[int, int, Versus, Float[Tensor, " key"]]:
    """Checked positions, and the weight of each key's score in the number asked for."""
    n_pos = len(maps.scores)
    query, key = _position(query, n_pos), _position(key, n_pos)
    others = maps.is_visible[query].clone()
    _check_visible(maps, query, key)
    weights = torch.zeros_like(maps.scores[query])
    others[key] = False
    if versus == MEAN:
        if not others.any():
            raise PromptError(
                f"query {query} sees key {key} alone: there is no other to compare with"
            )
        weights[others] = -1 / int(others.sum())
    elif versus is not None:
        if isinstance(versus, str):
            raise PromptError(f"versus is another key, 'mean' or None, not {versus[:40]!r}")
        versus = _position(versus, n_pos)
        _check_visible(maps, query, versus)
        if versus == key:
            raise PromptError(f"key {key} versus itself is nothing: give another key, or 'mean'")
        weights[versus] = -1
    weights[key] = 1
    return query, key, versus, weights


def _position(pos: int, n_pos: int) -> int:
    if not -n_pos <= pos < n_pos:
        raise PromptError(
            f"no position {pos}: the prompt's are 0 to {n_pos - 1}, or -{n_pos} to -1"
        )
    return pos % n_pos


def _check_visible(maps: QueryKey, query: int, key: int) -> None:
    if not maps.is_visible[query, key]:
        seen = maps.is_visible[query].nonzero().flatten().tolist()
        raise PromptError(
            f"no score: in head {maps.head} of {maps.frozen.model.name} query {query} does not see key {key} "
            f"(it sees {seen[0]} to {seen[-1]})"
        )


def _measured(scores: Float[Tensor, " key"], weights: Float[Tensor, " key"]) -> float:
    """Σ weight · score; masked keys, which are minus infinity, have no weight."""
    return float((weights * scores.clamp(min=LOWEST_SCORE))[weights != 0].sum())


def _is_constant(maps: QueryKey, query: int) -> Bool[np.ndarray, " key_part"]:
    visible = maps.is_visible[query]
    keys = maps.keys[1][:, visible] * maps.kept[query, visible, None]
    spread = (keys - keys.mean(1, keepdim=True)).abs().amax((1, 2))
    found: Bool[np.ndarray, " key_part"] = as_numpy(spread <= _SAME * keys.abs().amax((1, 2)))
    return found
