"""Conditions at equal loss: their measures interpolated along the curve of each.

A condition's curve over one seed runs through its models of several strengths, by the logarithm of the loss; of
models without a penalty, through snapshots of the training. Where a curve does not reach the loss, its nearest
model stands for it if its own loss is within a tenth; `loss_reached` says what was compared.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

NEAR = 0.1
MEASURES = (
    "loss",
    "accuracy",
    "induction",
    "previous_token",
    "n_induction",
    "n_previous",
    "in_use",
    "copying",
    "k_z",
    "k_matching",
    "k_above",
    "k_cut",
    "length",
    "length_placed",
    "spread",
    "live",
    "channels",
    "qk_top",
    "ov_top",
    "q",
    "q_chance",
)


def equal_table(models: pd.DataFrame, losses: Sequence[tuple[str, float]]) -> pd.DataFrame:
    """Tidy: data, loss, condition, measure, mean, low, high (least and most over seeds), n (seeds)."""
    found = []
    for data, loss in losses:
        of_data = models[models["data"] == data]
        for condition, curve in of_data.groupby("condition", sort=False):
            seeds = [at_loss(of_seed, loss) for _, of_seed in curve.groupby("seed")]
            reached = pd.DataFrame([row for row in seeds if row is not None])
            for measure in reached.columns:
                values = reached[measure].dropna()
                if len(values):
                    name = "loss_reached" if measure == "loss" else measure
                    row = {"data": data, "loss": loss, "condition": condition, "measure": name}
                    row |= {"mean": values.mean(), "low": values.min(), "high": values.max()}
                    found.append(row | {"n": len(values)})
    return pd.DataFrame(found)


def at_loss(curve: pd.DataFrame, loss: float) -> dict[str, float] | None:
    """The measures of one seed at a loss; None where no model of it is near."""
    curve = curve.sort_values("loss")
    along, wanted = np.log(curve["loss"].to_numpy(float)), float(np.log(loss))
    if min(abs(along - wanted)) > NEAR and not along[0] <= wanted <= along[-1]:
        return None
    found = {
        # Beyond its ends a curve stays what it is there.
        name: float(np.interp(wanted, along, curve[name].to_numpy(float)))
        for name in MEASURES
        if name in curve and curve[name].notna().all()
    }
    # Interpolated like the rest it would not be the loss at which they are compared.
    return found | {"loss": float(np.exp(np.clip(wanted, along[0], along[-1])))}
