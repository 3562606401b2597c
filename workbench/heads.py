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
from scipy import stats
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.protocol import Model
from workbench.runs import Prompt, Run, run, to_batch
from workbench.sites import Head

Targets = Bool[Tensor, "batch query key"]
SHORTEST = 8


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
    """Every head's scores with bootstrap intervals over prompts; `chance` is uniform attention's score."""

    model_name: str
    frame: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Tidy: layer, head, behaviour, value, low, high, chance, unit, n (prompts), seed."""
        return self.frame.copy()

    def value(self, head: Head, behaviour: str) -> float:
        """One head's score."""
        rows = self.frame.set_index(["layer", "head", "behaviour"])
        return float(rows.loc[(head.layer, head.head, behaviour), "value"])

    def best(self, behaviour: str, layer: int | None = None) -> Head:
        """The head that scores highest, of one layer or of all."""
        rows = self.frame[self.frame["behaviour"] == behaviour]
        rows = rows if layer is None else rows[rows["layer"] == layer]
        best = rows.loc[rows["value"].idxmax()]
        return Head(int(best["layer"]), int(best["head"]))


def head_scores(
    model: Model,
    *,
    prompts: Prompt | None = None,
    n_prompts: int = 16,
    n_pos: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> HeadScores:
    """Score every head's behaviours, entropy and mean distance.

    Args:
        prompts: what to score on; default `n_prompts` random repeats of `n_pos` tokens.
        seed: draws the prompts and the bootstrap.

    Raises:
        UnsupportedError: a context too short for repeats, or a model without attention.
    """
    if prompts is None:
        length = n_pos or min(model.cfg.n_ctx, 128)
        tokens, lengths = random_repeats(model, n_prompts, length, seed), (length,) * n_prompts
    else:
        tokens, lengths = to_batch(model, prompts)
    rows = [
        run(model, tokens[i : i + 1, :length], sites=("pattern",))
        for i, length in enumerate(lengths)
    ]
    names = [*BEHAVIOURS, "entropy", "distance"]
    # [prompt, behaviour] for chance, and the same for each head of each layer.
    chance = np.stack([_chance(row, names) for row in rows])
    frames = []
    for layer in sorted({site.layer for site in rows[0].sites if site.layer is not None}):
        values = np.stack([_values(row, row.pattern(layer)[0], names) for row in rows])
        frames.append(_summary(values, chance, names, layer, seed, confidence))
    return HeadScores(model.name, pd.concat(frames, ignore_index=True), confidence)


def random_repeats(model: Model, n_prompts: int, n_pos: int, seed: int) -> Int[Tensor, "batch pos"]:
    """Prompts `[BOS] p r r r …` of distinct random tokens, with random period and random phase.

    Raises:
        UnsupportedError: the context or the vocabulary is too small for any repeat.
    """
    before, after = model.tokenizer.special_around() if model.tokenizer else ([], [])
    plain = model.tokenizer.plain_ids() if model.tokenizer else list(range(model.cfg.d_vocab))
    free = n_pos - len(before) - len(after)
    if min(n_pos, model.cfg.n_ctx) < SHORTEST or free < SHORTEST // 2 or n_pos > model.cfg.n_ctx:
        raise UnsupportedError(
            f"head behaviours are scored on repeats of at least {SHORTEST} tokens; {model.name} reads "
            f"{model.cfg.n_ctx} and {n_pos} were asked for: give prompts=… of its own kind"
        )
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_prompts):
        longest = max(2, min(free // 2, len(plain) // 2))
        period = int(rng.integers(max(2, min(free // 8, longest)), longest + 1))
        drawn = rng.choice(plain, size=2 * period, replace=False)
        prefix, repeated = drawn[period : period + int(rng.integers(period))], drawn[:period]
        body = np.concatenate([prefix, np.tile(repeated, free // period + 1)])[:free]
        rows.append([*before, *body.tolist(), *after])
    return torch.tensor(rows)


def badges(scores: HeadScores, *, least: float = 0.3) -> dict[Head, list[Badge]]:
    """The behaviours that each head clearly shows, strongest first.

    A score counts if it reaches `least` and its whole interval lies above twice its chance level.
    """
    frame = scores.frame[scores.frame["behaviour"].isin(BEHAVIOURS)]
    shown = frame[(frame["value"] >= least) & (frame["low"] > 2 * frame["chance"])]
    labels: dict[Head, list[Badge]] = {}
    for row in shown.sort_values("value", ascending=False, kind="stable").itertuples():
        badge = Badge(str(row.behaviour), float(row.value), float(row.chance))
        labels.setdefault(Head(int(row.layer), int(row.head)), []).append(badge)
    return labels


def positional_kernel(
    model: Model, *, n_prompts: int = 16, n_pos: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Mean attention at each distance back, `mean_i pattern[i, i - offset]`, on random tokens.

    Tidy: layer, head, offset (tokens back; 0 is the query itself), value, low, high, chance, n, seed.
    """
    length = n_pos or min(model.cfg.n_ctx, 64)
    runs = [
        run(model, row[None], sites=("pattern",))
        for row in random_repeats(model, n_prompts, length, seed)
    ]
    names = [str(offset) for offset in range(length)]
    uniform = _visible(runs[0]) / _visible(runs[0]).sum(-1, keepdim=True)
    chance = np.stack([_diagonal_means(uniform[None])[0]] * len(runs))
    frames = []
    for layer in sorted({site.layer for site in runs[0].sites if site.layer is not None}):
        values = np.stack([_diagonal_means(one.pattern(layer)[0].float()) for one in runs])
        frames.append(_summary(values, chance, names, layer, seed, 0.95))
    table = pd.concat(frames, ignore_index=True).rename(columns={"behaviour": "offset"})
    return table.assign(offset=table["offset"].astype(int), unit="attention")


def _diagonal_means(
    pattern: Float[Tensor, "head query key"],
) -> Float[np.ndarray, "head offset"]:
    n_pos = pattern.shape[-1]
    means = [pattern.diagonal(-offset, 1, 2).mean(-1) for offset in range(n_pos)]
    return torch.stack(means, dim=-1).cpu().numpy()


def _visible(row: Run) -> Float[Tensor, "query key"]:
    n_pos = row.tokens.shape[1]
    return torch.ones(n_pos, n_pos).tril() if row.is_causal else torch.ones(n_pos, n_pos)


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
    visible = _visible(row)
    return _values(row, (visible / visible.sum(-1, keepdim=True))[None], names)[0]


def _summary(
    values: Float[np.ndarray, "prompt head behaviour"],
    chance: Float[np.ndarray, "prompt behaviour"],
    names: Sequence[str],
    layer: int,
    seed: int,
    confidence: float,
) -> pd.DataFrame:
    """Mean over prompts with a percentile bootstrap interval, one row per head and behaviour."""
    rows = []
    for index, name in enumerate(names):
        scored = np.isfinite(chance[:, index])
        if not scored.any():
            continue
        of_heads = values[scored, :, index].astype(float)
        low = high = np.full(of_heads.shape[1], np.nan)
        if len(of_heads) > 1:
            interval = stats.bootstrap(
                (of_heads,), np.mean, axis=0, vectorized=True, n_resamples=999,
                confidence_level=confidence, method="percentile", rng=np.random.default_rng(seed),
            ).confidence_interval  # fmt: skip
            low, high = interval.low, interval.high
        rows.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "head": np.arange(of_heads.shape[1]),
                    "behaviour": name,
                    "value": of_heads.mean(0),
                    "low": low,
                    "high": high,
                    "chance": chance[scored, index].mean(),
                    "unit": UNITS.get(name, "attention"),
                    "n": len(of_heads),
                    "seed": seed,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)
