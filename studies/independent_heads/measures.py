"""What trained stages are worth, where their heads look, and how alike they are: tidy tables.

Every model is measured as it is kept, rounded to float16. Intervals of single losses and gaps (95 %) resample
held-out rows; over seeds the mean is given with the lowest and the highest.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from studies.independent_heads.trained import (
    N_CTX,
    REPEATS,
    TEXT,
    Config,
    Stage,
    task_of,
    untrained,
)
from studies.intervals import pooled_mean
from workbench.circuits.copying import copying_scores
from workbench.heads.behaviours import head_scores
from workbench.models.transformer import Transformer
from workbench.runs import run
from workbench.training.recipes import D_SYMBOLS, D_VOCAB
from workbench.training.regularizers.decorrelation import head_likeness
from workbench.training.tasks import UNSCORED, Batch, Repeats, TextTask, position_losses, text_rows
from workbench.weights import effective_weights

DRAW = 1_000_000
"""A step that no training takes: its batch is held out."""

BEHAVIOURS = ("previous-token", "induction", "duplicate-token", "current-token", "first-token")
N_LIKENESS_ROWS = 64


class Loss(NamedTuple):
    """Sums over held-out rows: of losses, of right answers, and how many are scored."""

    sums: Float[np.ndarray, " row"]
    right: Float[np.ndarray, " row"]
    counts: Float[np.ndarray, " row"]


def rounded(model: Transformer) -> Transformer:
    """A model with the weights that a file of float16 keeps."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    return model.eval()


def held_out(task: str, n_rows: int) -> Batch:
    """Rows that no training has seen."""
    if task == REPEATS:
        return Repeats(D_SYMBOLS, N_CTX, n_rows, periods=(6, 24), first=2).batch(0, DRAW)
    text = task_of(TEXT)
    assert isinstance(text, TextTask)
    starts = np.linspace(0, len(text.held_out) - N_CTX - 1, n_rows).astype(int)
    return text_rows(text.held_out, starts, N_CTX, text.bos)


@torch.no_grad()
def losses(model: Transformer, batch: Batch) -> Loss:
    """Row by row."""
    of_positions = position_losses(model, batch).double()
    scored = batch.targets != UNSCORED
    right = (model(batch.tokens).argmax(-1) == batch.targets) & scored
    sums = of_positions.nan_to_num(0.0).sum(1)
    return Loss(sums.numpy(), right.sum(1).double().numpy(), scored.sum(1).double().numpy())


def curve_rows(
    task: str, way: str, seed: int, stages: Sequence[Stage], config: Config
) -> tuple[list[dict[str, object]], Loss]:
    """One row per stage: its loss and accuracy; and the row-wise losses of the last."""
    batch, rows = held_out(task, config.n_rows), []
    for stage in stages:
        last = losses(rounded(stage.model), batch)
        loss = pooled_mean(last.sums, last.counts, config.seed)
        rows.append(
            {
                "task": task,
                "way": way,
                "seed": seed,
                "heads": sum(stage.heads),
                "layers": len(stage.heads),
                "steps": stage.steps,
                "parameters": stage.model.cfg.n_params,
                "loss": loss.value,
                "loss_low": loss.low,
                "loss_high": loss.high,
                "accuracy": float(last.right.sum() / last.counts.sum()),
            }
        )
    return rows, last


def gap_row(task: str, way: str, seed: int, found: Loss, joint: Loss) -> dict[str, object]:
    """How much more is lost than by the joint model of the same seed."""
    gap = pooled_mean(found.sums - joint.sums, joint.counts, seed)
    names = {"task": task, "way": way, "seed": seed}
    return names | {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high}


def scored_rows(task: str, n_prompts: int) -> Tensor:
    """Random repeats with random period and phase, in the task's vocabulary."""
    d_vocab, first = (D_SYMBOLS, 2) if task == REPEATS else (D_VOCAB, 1)
    return Repeats(d_vocab, N_CTX, n_prompts, periods=(6, 24), first=first).batch(1, DRAW).tokens


def head_table(task: str, way: str, seed: int, model: Transformer, config: Config) -> pd.DataFrame:
    """One row per head: attention by behaviour, with chance; how far back it looks; whether it copies."""
    rows = scored_rows(task, config.n_prompts)
    scores = head_scores(model, prompts=rows, seed=config.seed).table()
    wide = scores.pivot(index=["layer", "head"], columns="behaviour", values=["value", "chance"])
    found = pd.DataFrame(index=wide.index)
    for behaviour in BEHAVIOURS:
        name = behaviour.replace("-", "_")
        found[name] = wide["value", behaviour]
        found[f"{name}_chance"] = wide["chance", behaviour]
    found["distance"] = wide["value", "distance"]
    copied = copying_scores(effective_weights(model), n_tokens=0, seed=config.seed).table()
    found = found.reset_index().merge(
        copied[["layer", "head", "score"]].rename(columns={"score": "copying"})
    )
    for place, (column, value) in enumerate({"task": task, "way": way, "seed": seed}.items()):
        found.insert(place, column, value)
    return found


def likeness_rows(
    task: str, way: str, seed: int, model: Transformer
) -> Iterable[dict[str, object]]:
    """One row per layer with two heads or more: mean and largest linear CKA of two heads' outputs."""
    kept = run(model, held_out(task, N_LIKENESS_ROWS).tokens, sites=("z",))
    for layer, block in enumerate(model.blocks):
        likeness = head_likeness(kept[f"blocks.{layer}.attn.hook_z"], block.attn).detach()
        heads = len(likeness)
        pairs = likeness[torch.ones(heads, heads, dtype=torch.bool).tril(-1)]
        yield {
            "task": task,
            "way": way,
            "seed": seed,
            "layer": layer,
            "pairs": len(pairs),
            "likeness": float(pairs.mean()),
            "largest": float(pairs.max()),
        }


def untrained_likeness(task: str, heads: tuple[int, ...], seed: int) -> list[dict[str, object]]:
    """The same for heads that nothing has been taught."""
    return list(likeness_rows(task, "untrained", seed, rounded(untrained(task, heads, seed))))


def chance_losses() -> dict[str, float]:
    """What is lost by guessing: evenly among the symbols, and by how often each token stands in the text."""
    text = task_of(TEXT)
    assert isinstance(text, TextTask)
    counts = np.bincount(np.asarray(text.train), minlength=D_VOCAB) + 1.0
    return {
        REPEATS: math.log(D_SYMBOLS - 2),
        TEXT: float(-np.log(counts / counts.sum())[np.asarray(text.held_out)].mean()),
    }


def summary_table(
    curves: pd.DataFrame, gaps: pd.DataFrame, heads: pd.DataFrame, likeness: pd.DataFrame
) -> pd.DataFrame:
    """One row per task and way: the last stage over seeds, mean, lowest and highest."""
    last = curves.loc[curves.groupby(["task", "way", "seed"], sort=False)["steps"].idxmax()]
    rows = []
    for (task, way), own in last.groupby(["task", "way"], sort=False):
        of = {
            name: table[(table["task"] == task) & (table["way"] == way)]
            for name, table in {"gaps": gaps, "heads": heads, "likeness": likeness}.items()
        }
        first = of["heads"][of["heads"]["layer"] == 0].groupby("seed")
        measured = {
            "loss": own["loss"],
            "accuracy": own["accuracy"],
            "gap": of["gaps"]["gap"],
            "previous": first["previous_token"].max(),
            "induction": of["heads"].groupby("seed")["induction"].max(),
            "likeness": of["likeness"].groupby("seed")["likeness"].mean(),
        }
        row: dict[str, object] = {"task": task, "way": way, "seeds": len(own)}
        row |= {"heads": own["heads"].iloc[0], "steps": own["steps"].iloc[0]}
        row |= {"parameters": own["parameters"].iloc[0]}
        for name, values in measured.items():
            row |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
        rows.append(row)
    return pd.DataFrame(rows)
