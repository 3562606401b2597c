"""What heads do: previous-token, duplicate-token, induction and the like, against chance.

A behaviour names, for each query, the keys it is about; its score is the attention on them, summed over
those keys, averaged over the queries that have any (Olsson et al. 2022, "In-context Learning and Induction
Heads", with the correction that induction is attention to the token *after* an earlier copy). Chance is what
uniform attention over the visible keys would score on the same prompts.

Scored by default on `[BOS] p r r r …`: r of random tokens and *random period*, p of random length. With one
fixed period, attending a fixed distance back would pass for induction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import SiteError, UnsupportedError
from workbench.models.protocol import Model
from workbench.prompts import check_settings, random_repeats, reach
from workbench.runs import Prompt, Run, to_batch
from workbench.scoring import Progress, pattern_rows, summary, uniform
from workbench.sites import Head

Targets = Bool[Tensor, "batch query key"]


def previous_token(tokens: Int[Tensor, "batch pos"]) -> Targets:
    """The token just before the query."""
    n_pos = tokens.shape[1]
    return torch.eye(n_pos, dtype=torch.bool).roll(-1, dims=1).tril(-1).expand(len(tokens), -1, -1)


def current_token(tokens: Int[Tensor, "batch pos"]) -> Targets:
    """The query's own token."""
    return torch.eye(tokens.shape[1], dtype=torch.bool).expand(len(tokens), -1, -1)


def first_token(tokens: Int[Tensor, "batch pos"]) -> Targets:
    """The first position, where heads rest that have nothing to do; the first query is left out."""
    target = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    target[:, 1:, 0] = True
    return target


def duplicate_token(tokens: Int[Tensor, "batch pos"]) -> Targets:
    """Earlier copies of the query's token."""
    return (tokens[:, :, None] == tokens[:, None, :]).tril(-1)


def induction(tokens: Int[Tensor, "batch pos"]) -> Targets:
    """The tokens after all earlier copies of the query's token."""
    # Key k is a target if token k - 1 equals the query's, so shift the copies one key to the right.
    return duplicate_token(tokens).roll(1, dims=2).tril(-1)


BEHAVIOURS: dict[str, Callable[[Int[Tensor, "batch pos"]], Targets]] = {
    "previous-token": previous_token,
    "current-token": current_token,
    "duplicate-token": duplicate_token,
    "induction": induction,
    "first-token": first_token,
}
UNITS = dict.fromkeys(BEHAVIOURS, "attention") | {"entropy": "nats", "distance": "tokens"}


class Badge(NamedTuple):
    """A behaviour that a head clearly shows."""

    behaviour: str
    value: float
    chance: float


@dataclass(frozen=True)
class HeadScores:
    """Every head's scores, 95 % bootstrap intervals over prompts, and chance: what uniform attention scores.

    One prompt alone has no interval.
    """

    model_name: str
    frame: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Tidy: layer, head, behaviour, value, low, high, chance, unit, n (prompts), seed."""
        return self.frame.copy()

    def value(self, head: Head, behaviour: str) -> float:
        """One head's score.

        Raises:
            SiteError: no such head or behaviour.
        """
        rows = self._rows(behaviour)
        rows = rows[(rows["layer"] == head.layer) & (rows["head"] == head.head)]
        if rows.empty:
            raise SiteError(f"{self.model_name} has no head {head}")
        return float(rows["value"].iloc[0])

    def best(self, behaviour: str, layer: int | None = None) -> Head:
        """The head that scores highest, of one layer or of all.

        Raises:
            SiteError: no such behaviour, or a layer without heads.
        """
        rows = self._rows(behaviour)
        rows = rows if layer is None else rows[rows["layer"] == layer]
        if rows.empty:
            raise SiteError(f"{self.model_name} has no heads in layer {layer}")
        best = rows.loc[rows["value"].idxmax()]
        return Head(int(best["layer"]), int(best["head"]))

    def _rows(self, behaviour: str) -> pd.DataFrame:
        rows = self.frame[self.frame["behaviour"] == behaviour]
        if rows.empty:
            known = ", ".join(self.frame["behaviour"].unique())
            raise SiteError(f"no scores of {behaviour!r} here: there are {known}")
        return rows


def head_scores(
    model: Model,
    *,
    prompts: Prompt | None = None,
    n_prompts: int = 16,
    n_pos: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadScores:
    """Score every head's behaviours, entropy and mean distance.

    Args:
        prompts: what to score on; default `n_prompts` random repeats of `n_pos` tokens.
        seed: draws the prompts and the bootstrap.
        progress: told after every batch how many prompts of how many are done.

    Raises:
        UnsupportedError: a context too short for repeats, prompts beyond a sliding window, a model without
            attention, or settings that cannot be meant.
    """
    check_settings(n_prompts, n_pos, seed)
    if prompts is None:
        length = n_pos or min(reach(model), 128)
        tokens, lengths = random_repeats(model, n_prompts, length, seed), (length,) * n_prompts
    else:
        tokens, lengths = to_batch(model, prompts)
    rows = pattern_rows(model, tokens, lengths, progress)
    names = [*BEHAVIOURS, "entropy", "distance"]
    # [prompt, behaviour] for chance, and the same for each head of each layer.
    chance = np.stack([_chance(row, names) for row in rows])
    frames = []
    for layer in sorted({site.layer for site in rows[0].sites if site.layer is not None}):
        values = np.stack([_values(row, row.pattern(layer)[0], names) for row in rows])
        frames.append(summary(values, chance, names, layer, seed))
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(7, "unit", frame["behaviour"].map(UNITS))
    return HeadScores(model.name, frame)


def badges(scores: HeadScores, *, least: float = 0.3) -> dict[Head, list[Badge]]:
    """The behaviours that each head clearly shows, strongest first.

    A score counts if it reaches `least` and its whole interval lies above twice its chance level.

    Raises:
        UnsupportedError: scores of a single prompt, which have no interval.
    """
    if scores.frame["low"].isna().all():
        raise UnsupportedError(
            "badges rest on intervals, and one prompt has none: score two or more"
        )
    frame = scores.frame[scores.frame["behaviour"].isin(BEHAVIOURS)]
    shown = frame[(frame["value"] >= least) & (frame["low"] > 2 * frame["chance"])]
    labels: dict[Head, list[Badge]] = {}
    for row in shown.sort_values("value", ascending=False, kind="stable").itertuples():
        badge = Badge(str(row.behaviour), float(row.value), float(row.chance))
        labels.setdefault(Head(int(row.layer), int(row.head)), []).append(badge)
    return labels


def _values(
    row: Run, pattern: Float[Tensor, "head query key"], names: Sequence[str]
) -> Float[np.ndarray, "head behaviour"]:
    """Scores of one prompt; NaN where no query has a target."""
    tokens, pattern = row.tokens.cpu(), pattern.float().cpu()
    positions = torch.arange(tokens.shape[1])
    away = (positions[:, None] - positions).abs().float()
    scores = []
    for name in names:
        if name == "entropy":
            per_query = -torch.special.xlogy(pattern, pattern).sum(-1)
            scores.append(per_query[:, 1:].mean(-1))
        elif name == "distance":
            scores.append((pattern * away).sum(-1)[:, 1:].mean(-1))
        else:
            target = BEHAVIOURS[name](tokens)[0]
            on_target = (pattern * target).sum(-1)
            scores.append(on_target[:, target.any(-1)].mean(-1))
    return torch.stack(scores, dim=-1).numpy()


def _chance(row: Run, names: Sequence[str]) -> Float[np.ndarray, " behaviour"]:
    return _values(row, uniform(row), names)[0]
