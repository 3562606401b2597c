"""Which heads of `attn-1l` copy: by their weights, and by what is lost without them.

By weights: the copying score of the OV circuit (`workbench.circuits.copying`), against random heads. By
behaviour: a head's output is replaced by its mean over the text, and the loss is split into tokens that stand
earlier in their context, which can be copied, and tokens that do not.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from studies.intervals import pooled_mean
from workbench.circuits.copying import copying_scores
from workbench.models.protocol import HookFn, Model
from workbench.sites import Head, Site
from workbench.trigrams.contexts import contexts
from workbench.weights import effective_weights

BATCH = 16


def copying_table(model: Model, n_rows: int, n_null: int, seed: int) -> pd.DataFrame:
    """One row per head: its score with its null, and what its removal costs in nats per token."""
    weights = effective_weights(model)
    scores = copying_scores(weights, n_null=n_null, n_tokens=len(weights.W_E), seed=seed).table()
    rows = text_rows(model, n_rows)
    repeated = is_repeated(rows).numpy()
    means = mean_outputs(model, rows)
    intact = losses(model, rows, [])
    found = []
    for head in weights.heads:
        cost = (losses(model, rows, [replaced(model, head, means)]) - intact).numpy()
        row: dict[str, float] = {}
        for name, chosen in (("repeated", repeated), ("new", ~repeated)):
            sums, counts = (cost * chosen).sum(1), chosen.sum(1).astype(float)
            value, low, high = pooled_mean(sums, counts, seed)
            row |= {f"cost_{name}": value, f"cost_{name}_low": low, f"cost_{name}_high": high}
        found.append(row)
    columns = ["layer", "head", "score", "null_std", "z", "percentile", "diagonal_top", "chance"]
    table = pd.concat([scores[columns], pd.DataFrame(found)], axis=1)
    return table.assign(share_repeated=float(repeated.mean()), n_rows=len(rows))


def text_rows(model: Model, n_rows: int) -> Int[Tensor, "row pos"]:
    """Contexts of the bundled held-out text, evenly spaced."""
    whole = contexts(model)[:-1]
    return torch.from_numpy(whole[np.linspace(0, len(whole) - 1, n_rows).astype(int)])


def is_repeated(rows: Int[Tensor, "row pos"]) -> Bool[Tensor, "row next"]:
    """Whether the token to be predicted stands earlier in its row."""
    same = rows[:, 1:, None] == rows[:, None, :-1]
    return same.tril().any(-1)


def mean_outputs(model: Model, rows: Int[Tensor, "row pos"]) -> Float[Tensor, "head d_head"]:
    """What the heads of layer 0 hand to W_O, on average."""
    kept: list[Tensor] = []

    def keep(z: Tensor, hook: object) -> None:
        kept.append(z.mean((0, 1)))

    losses(model, rows, [(model.site_hook(Site("z", 0)), keep)])
    return torch.stack(kept).mean(0)


def replaced(model: Model, head: Head, means: Float[Tensor, "head d_head"]) -> tuple[str, HookFn]:
    """A hook that sets one head's output to its mean everywhere."""

    def replace(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[:, :, head.head] = means[head.head]
        return z

    return model.site_hook(Site("z", head.layer)), replace


@torch.no_grad()
def losses(
    model: Model, rows: Int[Tensor, "row pos"], hooks: list[tuple[str, HookFn]]
) -> Float[Tensor, "row next"]:
    """Cross-entropy in nats of every token after the first of its row."""
    found = []
    for batch in rows.split(BATCH):
        with model.lock, model.hooks(fwd_hooks=hooks):
            log_probs = model(batch)[:, :-1].double().log_softmax(-1)
        found.append(-log_probs.gather(-1, batch[:, 1:, None])[..., 0])
    return torch.cat(found)
