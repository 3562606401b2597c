"""Lesions and gradients of a model as tidy tables.

Draws of several deletions or swaps are summed up per count: the median over draws, each a mean over texts,
with the range that four fifths of them are in.
"""

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch import Tensor

from workbench.models.protocol import Model
from workbench.paths.frozen import freeze
from workbench.paths.lengths import gradient_by_length
from workbench.paths.lesions import deletions, lesions, random_deletions, random_swaps

Texts = tuple[str, ...] | Int[Tensor, "row pos"]


def deletion_table(model: Model, texts: Texts, *, hold_norms: bool, seed: int) -> pd.DataFrame:
    """One row per sublayer: what its deletion changes, by each way, in nats per token."""
    found = lesions(model, texts, "layer", hold_norms=hold_norms)
    table = found.table(seed).assign(model=model.name, residual=found.residual)
    parts = [lesion.removed[0] for lesion in deletions(model, "layer")]
    kinds, layers = [part.kind for part in parts], [part.layer for part in parts]
    table = table.assign(kind=kinds, layer=layers, intact=_mean(found.intact, found.n_tokens))
    if not hold_norms:
        table = table.assign(norms_held=np.nan, norms_held_low=np.nan, norms_held_high=np.nan)
    return table


def draw_table(
    model: Model, texts: Texts, counts: tuple[int, ...], n_draws: int, seed: int
) -> pd.DataFrame:
    """One row per kind of lesion and count: the loss itself, truly and by the frozen network."""
    n_sublayers = sum(block.has_attn + block.has_mlp for block in model.blocks)
    some = tuple(count for count in counts if count <= n_sublayers)
    rows = []
    for kind, draw in (("deleted", random_deletions), ("swapped", random_swaps)):
        cut = draw(model, some, n_draws, seed)
        found = lesions(model, texts, cut)
        by_draw = {
            name: _mean(getattr(found, name), found.n_tokens).reshape(len(some), n_draws)
            for name in ("true", "frozen")
        }
        kendall = np.array([one.kendall for one in cut]).reshape(len(some), n_draws)
        for place, count in enumerate(some):
            row = {"model": model.name, "kind": kind, "count": count, "n_sublayers": n_sublayers}
            row |= {"n_draws": n_draws, "kendall": float(kendall[place].mean())}
            for name, values in by_draw.items():
                low, middle, high = np.quantile(values[place], [0.1, 0.5, 0.9])
                row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def length_table(model: Model, texts: Texts, n_samples: int, seed: int) -> pd.DataFrame:
    """One row per path length, its gradients averaged over texts (in squares, as they are norms)."""
    prompts = [texts[row] for row in range(len(texts))]
    found = [
        gradient_by_length(
            freeze(model, text if isinstance(text, str) else text[None]),
            n_samples=n_samples,
            seed=seed,
        )
        for text in prompts
    ]

    def averaged(name: str) -> np.ndarray:
        return np.sqrt(np.mean([np.square(getattr(one, name)) for one in found], axis=0))

    counts = np.array(found[0].n_paths, dtype=float)
    mean, whole = averaged("mean"), averaged("whole")
    products = counts * mean
    return pd.DataFrame(
        {
            "model": model.name,
            "length": np.arange(len(counts)),
            "n_paths": counts,
            "counted": counts / counts.sum(),
            "mean": mean,
            "error": averaged("error"),
            "n_seen": found[0].n_seen,
            "effective": products / products.sum(),
            "whole": whole,
            "coherence": whole / products,
            "total": float(averaged("total")),
        }
    )


def summary_table(
    single: pd.DataFrame, lengths: pd.DataFrame, uniform: dict[str, float]
) -> pd.DataFrame:
    """One row per model: how many sublayers can go, how well that is foretold, and path lengths."""
    rows = []
    for model, cut in single.groupby("model", sort=False):
        by_length = lengths[lengths["model"] == model]
        length = by_length["length"].to_numpy(float)
        gains = uniform[str(model)] - cut["intact"].iloc[0]
        whole = by_length["whole"] / by_length["whole"].sum()
        rows.append(
            {
                "model": model,
                "n_sublayers": len(cut),
                "intact": cut["intact"].iloc[0],
                "uniform": uniform[str(model)],
                "gained": gains,
                "median_cost": cut["true"].median(),
                "cheap": int((cut["true"] < 0.05 * gains).sum()),
                "worst": cut.loc[cut["true"].idxmax(), "lesion"],
                "worst_cost": cut["true"].max(),
                "rank_correlation": cut["true"].corr(cut["frozen"], method="spearman"),
                "error": (cut["true"] - cut["frozen"]).abs().median(),
                "error_norms_held": (cut["norms_held"] - cut["frozen"]).abs().median(),
                "length_counted": float((length * by_length["counted"]).sum()),
                "length_effective": float((length * by_length["effective"]).sum()),
                "length_whole": float((length * whole).sum()),
                "cancellation": float(by_length["whole"].sum() / by_length["total"].iloc[0]),
            }
        )
    return pd.DataFrame(rows)


def _mean(values: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """Over prompts, each weighing its tokens."""
    return (n_tokens / n_tokens.sum()) @ values
