"""What trained models are worth, and what is lost without the old or the new channels: tidy tables.

Without   all that is written in these channels (embedding, positions, heads) is set to its mean over the
          held-out rows and positions, everywhere in the stream at once
Share     of the variance of the logits' inputs: Σ over channels of var(stream_c) ‖W_U[c] less its mean‖²

Every model is measured as it is kept, rounded to float16. Intervals (95 %) resample held-out rows.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from studies.growing_channels.trained import Config
from studies.independent_heads.measures import held_out, scored_rows
from studies.independent_heads.trained import REPEATS
from studies.intervals import pooled_mean
from workbench.heads.behaviours import head_scores
from workbench.models.transformer import Transformer
from workbench.training.tasks import UNSCORED, Batch, position_losses

N_PROMPTS = 64


def loss_row(
    task: str, way: str, seed: int, model: Transformer, config: Config
) -> tuple[dict[str, object], np.ndarray]:
    """One model's loss and best heads; and the sums of its losses, row by row."""
    batch = held_out(task, config.n_rows)
    sums, counts = _sums(model, batch), _counts(batch)
    loss = pooled_mean(sums, counts, config.seed)
    row: dict[str, object] = {"task": task, "way": way, "seed": seed}
    row |= {"channels": model.cfg.d_model, "parameters": model.cfg.n_params}
    row |= {"loss": loss.value, "loss_low": loss.low, "loss_high": loss.high}
    if task == REPEATS:
        prompts = scored_rows(task, N_PROMPTS)
        scores = head_scores(model, prompts=prompts, seed=config.seed)
        row["previous"] = scores.value(scores.best("previous-token", layer=0), "previous-token")
        row["induction"] = scores.value(scores.best("induction"), "induction")
    return row, sums


def gap_row(
    task: str, way: str, seed: int, sums: np.ndarray, wide: np.ndarray, config: Config
) -> dict[str, object]:
    """How much more is lost than by the wide model of the same seed."""
    gap = pooled_mean(sums - wide, _counts(held_out(task, config.n_rows)), config.seed)
    names = {"task": task, "way": way, "seed": seed}
    return names | {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high}


def use_rows(
    task: str, way: str, seed: int, model: Transformer, config: Config
) -> list[dict[str, object]]:
    """What is lost without the first C channels, without the others, and without random ones as many as C."""
    batch, width = held_out(task, config.n_rows), model.cfg.d_model
    counts = _counts(batch)
    intact = _sums(model, batch)
    rng = np.random.default_rng(config.seed)
    groups = {
        "old": [np.arange(config.width)],
        "new": [np.arange(config.width, width)],
        "random": [rng.permutation(width)[: config.width] for _ in range(config.n_halves)],
    }
    shares = _shares(model, batch.tokens)
    rows = []
    for group, drawn in groups.items():
        costs = [
            pooled_mean(_sums(model, batch, channels) - intact, counts, config.seed)
            for channels in drawn
        ]
        one = len(costs) == 1
        values = [cost.value for cost in costs]
        rows.append(
            {
                "task": task,
                "way": way,
                "seed": seed,
                "without": group,
                "channels": len(drawn[0]),
                "cost": float(np.mean(values)),
                "cost_low": costs[0].low if one else min(values),
                "cost_high": costs[0].high if one else max(values),
                "share": float(np.mean([shares[channels].sum() for channels in drawn])),
            }
        )
    return rows


def _counts(batch: Batch) -> np.ndarray:
    return (batch.targets != UNSCORED).sum(1).double().numpy()


def _sums(model: Transformer, batch: Batch, without: np.ndarray | None = None) -> np.ndarray:
    """Losses of each row, with what is written in some channels set to its mean."""
    channels = torch.from_numpy(np.empty(0, dtype=int) if without is None else without)

    def settle(written: Tensor, hook: object) -> Tensor:
        settled = written.clone()
        settled[..., channels] = written[..., channels].mean((0, 1))
        return settled

    names = [name for name in _written(model) if len(channels)]
    with model.lock, model.hooks([(name, settle) for name in names]):
        found = position_losses(model, batch)
    return found.double().nan_to_num(0.0).sum(1).numpy()


def _written(model: Transformer) -> list[str]:
    heads = [f"blocks.{layer}.hook_attn_out" for layer in range(model.cfg.n_layers)]
    return ["hook_embed", "hook_pos_embed", *heads]


def _shares(model: Transformer, tokens: Tensor) -> np.ndarray:
    kept: list[Tensor] = []
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    hook = (last, lambda stream, hook: kept.append(stream))
    with torch.no_grad(), model.lock, model.hooks([hook]):
        model(tokens)
    power = kept[0].flatten(0, 1).double().var(0)
    read = model.W_U.detach().double()
    parts = power * (read - read.mean(1, keepdim=True)).square().sum(1)
    return (parts / parts.sum()).numpy()


def summary_table(losses: pd.DataFrame, gaps: pd.DataFrame) -> pd.DataFrame:
    """One row per task and way over seeds: mean, lowest and highest."""
    merged = losses.merge(gaps, on=["task", "way", "seed"])
    return _over_seeds(merged, ["task", "way"], ["loss", "gap", "previous", "induction"])


def use_table(used: pd.DataFrame) -> pd.DataFrame:
    """One row per task, way and group of channels over seeds."""
    return _over_seeds(used, ["task", "way", "without"], ["cost", "share"])


def _over_seeds(table: pd.DataFrame, keys: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    rows = []
    for key, own in table.groupby(list(keys), sort=False):
        row: dict[str, object] = dict(zip(keys, key, strict=True)) | {"seeds": len(own)}
        row |= {name: own[name].iloc[0] for name in ("channels", "parameters") if name in own}
        for name in names:
            values = own[name]
            row |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
        rows.append(row)
    return pd.DataFrame(rows)
