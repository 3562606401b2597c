"""The trap of a fixed period: a model that repeats perfectly, with "induction heads" in its first layer.

    python -m studies.induction_heads.trap       trains the models kept in fixed-period-<seed>/ anew

Same shape, data and schedule as `induction-2l`, but every sequence repeats after exactly `PERIOD` tokens. The
token to predict stands a fixed distance back, so position alone finds it, in one layer, without composition.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from studies.induction_heads.composing import Rows
from studies.intervals import pooled_mean
from workbench.heads.behaviours import head_scores
from workbench.models.checkpoints import load_checkpoint, save_checkpoint
from workbench.models.protocol import Model
from workbench.training.loop import fit
from workbench.training.recipes import D_SYMBOLS, make, recipe, shortened
from workbench.training.tasks import UNSCORED, Repeats

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
PERIOD, STEPS, N_CTX, FIRST = 16, 200, 64, 2
DRAW = 1_000_000


def folder_of(seed: int) -> Path:
    """Where a model trained on one period is kept."""
    return HERE / f"fixed-period-{seed}"


def repeats(period: int, n_rows: int) -> Repeats:
    """Random symbols that repeat after exactly `period` tokens."""
    return Repeats(D_SYMBOLS, N_CTX, n_rows, (period, period), first=FIRST)


def train(seed: int, folder: Path, steps: int = STEPS) -> None:
    """Train one model on one period into a folder; its weights are kept as float16."""
    chosen = shortened(recipe("induction-2l"), seed, steps)
    model, _ = make(chosen)
    with TemporaryDirectory() as scratch:
        config = replace(chosen.training, validate_every=steps)
        fit(model, repeats(PERIOD, 32), config, Path(scratch))
        shutil.rmtree(folder, ignore_errors=True)
        save_checkpoint(load_checkpoint(scratch), folder, dtype=torch.float16)


def rows_of(period: int, n_rows: int, seed: int) -> Rows:
    """Prompts of one period that no training step draws."""
    return repeats(period, n_rows).batch(seed, DRAW).tokens


def period_table(
    models: list[Model], periods: tuple[int, ...], n_rows: int, seed: int
) -> pd.DataFrame:
    """One row per model and period: loss where the text repeats, and the best induction score per layer."""
    found = []
    for model in models:
        for period in periods:
            scores = head_scores(model, prompts=rows_of(period, n_rows, seed), seed=seed)
            row: dict[str, object] = {"model": model.name, "period": period}
            for layer in (0, 1):
                head = scores.best("induction", layer=layer)
                row |= {
                    f"head_{layer}": str(head),
                    f"induction_{layer}": scores.value(head, "induction"),
                }
            table = scores.table().query("behaviour == 'induction'")
            row["chance"] = float(table["chance"].iloc[0])
            sums, counts = _losses(model, period, n_rows, seed)
            loss = pooled_mean(sums, counts, seed)
            found.append(row | {"loss": loss.value, "loss_low": loss.low, "loss_high": loss.high})
    return pd.DataFrame(found)


def _losses(
    model: Model, period: int, n_rows: int, seed: int
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Per prompt: the sum of the losses on repeated tokens, and how many there are."""
    batch = repeats(period, n_rows).batch(seed, DRAW)
    with torch.no_grad(), model.lock:
        log_probs = model(batch.tokens).double().log_softmax(-1)
    scored = batch.targets != UNSCORED
    losses = -log_probs.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    return (losses * scored).sum(1).numpy(), scored.sum(1).double().numpy()


if __name__ == "__main__":
    for number in SEEDS:
        train(number, folder_of(number))
