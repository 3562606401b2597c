"""From patterns to scores: runs of many prompts, what was visible in them, means with intervals."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from workbench.errors import SiteError, UnsupportedError
from workbench.models.protocol import Model
from workbench.prompts import reach
from workbench.runs import Run, run

BATCH, CONFIDENCE = 8, 0.95
Progress = Callable[[int, int], None]
"""(prompts done, prompts in all)"""


def pattern_rows(
    model: Model, tokens: Tensor, lengths: Sequence[int], progress: Progress | None = None
) -> list[Run]:
    """Runs of one prompt each, with all patterns; neighbours of one length share a forward pass.

    Raises:
        UnsupportedError: no attention, or a prompt that a sliding window would cut.
    """
    if max(lengths) > reach(model):
        raise UnsupportedError(
            f"{model.name} sees {reach(model)} tokens at once and a prompt has {max(lengths)}: chance is "
            "known only where every earlier token can be seen"
        )
    rows: list[Run] = []
    while len(rows) < len(lengths):
        start, length = len(rows), lengths[len(rows)]
        stop = start + 1
        while stop < min(len(lengths), start + BATCH) and lengths[stop] == length:
            stop += 1
        try:
            together = run(model, tokens[start:stop, :length], sites=("pattern",))
        except SiteError as error:
            raise UnsupportedError(f"{model.name} has no attention to score") from error
        rows += [together.row(index) for index in range(stop - start)]
        if progress is not None:
            progress(len(rows), len(lengths))
    return rows


def visible(row: Run) -> Float[Tensor, "query key"]:
    """1 where a query may see a key."""
    n_pos = row.tokens.shape[1]
    return torch.ones(n_pos, n_pos).tril() if row.is_causal else torch.ones(n_pos, n_pos)


def uniform(row: Run) -> Float[Tensor, "1 query key"]:
    """The pattern of a head that attends to all it sees alike: the chance level."""
    seen = visible(row)
    return (seen / seen.sum(-1, keepdim=True))[None]


def summary(
    values: Float[np.ndarray, "prompt head score"],
    chance: Float[np.ndarray, "prompt score"],
    names: Sequence[str],
    layer: int,
    seed: int,
) -> pd.DataFrame:
    """Mean over prompts with a percentile bootstrap interval, one row per head and score.

    A score that a prompt does not have (NaN chance) is averaged over the prompts that do have it.
    """
    parts = []
    for scored in np.unique(np.isfinite(chance), axis=1).T:
        columns = np.flatnonzero((np.isfinite(chance) == scored[:, None]).all(0))
        if not scored.any() or not len(columns):
            continue
        of_heads = values[scored][:, :, columns].astype(float)
        mean = of_heads.mean(0)
        low, high = _interval(of_heads, seed)
        head, column = np.indices(mean.shape)
        parts.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "head": head.ravel(),
                    "behaviour": np.asarray(names)[columns][column.ravel()],
                    "value": mean.ravel(),
                    "low": low.ravel(),
                    "high": high.ravel(),
                    "chance": chance[scored][:, columns].mean(0)[column.ravel()],
                    "n": int(scored.sum()),
                    "seed": seed,
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    place = {name: index for index, name in enumerate(names)}
    order = table["behaviour"].map(place).to_numpy() * len(table) + table["head"].to_numpy()
    return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _interval(
    of_heads: Float[np.ndarray, "prompt head score"], seed: int
) -> tuple[Float[np.ndarray, "head score"], Float[np.ndarray, "head score"]]:
    if len(of_heads) == 1:
        nothing = np.full(of_heads.shape[1:], np.nan)
        return nothing, nothing
    found = stats.bootstrap(
        (of_heads,),
        np.mean,
        axis=0,
        vectorized=True,
        n_resamples=999,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=100,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return found.low, found.high
