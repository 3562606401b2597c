"""What forms first in `attn-2l`: composition, copying, the induction score, or learning in context?

All of one pair of heads, chosen at the last step: the best induction head and the best previous-token head.
Learning in context is what the model gains over bigrams, that is over `attn-0l` token by token, late in the
context (positions 239 to 249) minus early (19 to 29): against the plain late-minus-early loss, this takes away
that some stretches of text are harder than others.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from studies.induction_heads.composing import Rows
from studies.intervals import pooled_mean
from workbench.circuits.copying import copying_scores
from workbench.composition.scores import composition_scores
from workbench.heads.behaviours import HeadScores, head_scores
from workbench.models import load
from workbench.models.protocol import Model
from workbench.prompts import random_repeats
from workbench.sites import Head
from workbench.training.card import EARLY, LATE
from workbench.trigrams.contexts import contexts
from workbench.weights import effective_weights

MEASURES = {
    "copying": "copying score of the reader",
    "matching": "matching through K",
    "z": "K-composition, z",
    "previous_token": "previous-token score of the writer",
    "induction": "induction score of the reader",
    "in_context": "learning in context",
}
BIGRAMS = "attn-0l"
BATCH = 16


class Chosen(NamedTuple):
    """The pair of heads that is followed."""

    writer: Head
    reader: Head


def chosen_pair(scores: HeadScores) -> Chosen:
    """The best previous-token head of layer 0 and the best induction head of layer 1."""
    return Chosen(scores.best("previous-token", layer=0), scores.best("induction", layer=1))


def formation_table(
    name: str, steps: tuple[int, ...], n_rows: int, n_prompts: int, seed: int
) -> pd.DataFrame:
    """One row per kept step: every measure of the chosen pair, the largest z of any other pair through K,

    and the mean loss on held-out text.
    """
    final = load(name)
    prompts = random_repeats(final, n_prompts, 128, seed)
    pair = chosen_pair(head_scores(final, prompts=prompts, seed=seed))
    whole = contexts(final)[:-1]
    text = torch.from_numpy(whole[np.linspace(0, len(whole) - 1, n_rows).astype(int)])
    bigrams = _losses(load(BIGRAMS), text)
    rows = []
    for step in steps:
        model = load(name, step=step)
        measured = _circuit(model, pair, prompts, seed) | _on_text(model, text, bigrams, seed)
        rows.append({"step": step, **measured})
    return pd.DataFrame(rows).assign(
        model=name, writer=str(pair.writer), reader=str(pair.reader), n_rows=n_rows
    )


def onsets(formation: pd.DataFrame) -> pd.DataFrame:
    """When each measure is half-way from its first to its last value: between which steps, and interpolated."""
    steps = formation["step"].to_numpy(float)
    rows = []
    for measure, label in MEASURES.items():
        values = formation[measure].to_numpy(float)
        share = (values - values[0]) / (values[-1] - values[0])
        after = int(np.argmax(share >= 0.5))
        before = after - 1
        part = (0.5 - share[before]) / (share[after] - share[before])
        rows.append(
            {
                "measure": measure,
                "label": label,
                "first": values[0],
                "last": values[-1],
                "after": int(steps[before]),
                "by": int(steps[after]),
                "half_way": float(steps[before] + part * (steps[after] - steps[before])),
            }
        )
    return pd.DataFrame(rows)


def _circuit(model: Model, pair: Chosen, prompts: Rows, seed: int) -> dict[str, float]:
    """The pair's weights, and what its heads do on random repeats."""
    weights = effective_weights(model)
    scores = head_scores(model, prompts=prompts, seed=seed).table().set_index(["layer", "head"])
    through = composition_scores(weights, seed=seed).table().query("through == 'K'")
    is_pair = (through["writer"] == str(pair.writer)) & (through["reader"] == str(pair.reader))
    composed = through[is_pair].iloc[0]
    found = {
        "copying": copying_scores(weights, n_tokens=0, seed=seed).value(pair.reader),
        "matching": composed["matching"],
        "score": composed["score"],
        "z": composed["z"],
        "other_z": through[~is_pair]["z"].max(),
    }
    for name, head in (("previous-token", pair.writer), ("induction", pair.reader)):
        of_head = scores.loc[(head.layer, head.head)]
        row = of_head[of_head["behaviour"] == name].iloc[0]
        key = name.replace("-", "_")
        found |= {key: row["value"], f"{key}_low": row["low"], f"{key}_high": row["high"]}
    return found


def _on_text(
    model: Model, text: Rows, bigrams: Float[Tensor, "row pos"], seed: int
) -> dict[str, float]:
    """Mean loss, and how much more is gained over bigrams late in the context than early."""
    losses = _losses(model, text)
    late, early = (
        (bigrams - losses)[:, first : last + 1].mean(1).numpy() for first, last in (LATE, EARLY)
    )
    gained = pooled_mean(late - early, np.ones(len(text)), seed)
    return {
        "loss": float(losses.mean()),
        "in_context": gained.value,
        "in_context_low": gained.low,
        "in_context_high": gained.high,
    }


def _losses(model: Model, text: Rows) -> Float[Tensor, "row pos"]:
    parts = []
    with torch.no_grad(), model.lock:
        for batch in text.split(BATCH):
            log_probs = model(batch)[:, :-1].log_softmax(-1)
            parts.append(-log_probs.gather(-1, batch[:, 1:, None])[..., 0])
    return torch.cat(parts).double()
