"""A model's card: what it is, what it was trained on, and what was measured of its stored weights.

Every number under `metrics` and `heads` can be measured again from the bundled files alone:
`measured(load(name))` and `head_rows(load(name))`.
"""

import json
import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.heads.behaviours import head_scores
from workbench.models.checkpoints import load_checkpoint
from workbench.models.files import checkpoint_steps
from workbench.models.transformer import Transformer
from workbench.training.corpora import encoded
from workbench.training.held_out import held_out_text
from workbench.training.loop import read_metrics
from workbench.training.recipes import MODULUS, Recipe, make_repeats
from workbench.training.tasks import ModularAddition, position_losses, text_rows
from workbench.writing import write_atomically

EARLY, LATE = (19, 29), (239, 249)
"""Positions between which the in-context-learning score is taken (500 and 50 of 512, scaled to 256)."""

CARD_BEHAVIOURS = ("previous-token", "induction", "duplicate-token", "first-token")
_GROKKED = 0.999
_ROWS_AT_ONCE = 16


def write_card(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Measure a finished folder and write its card.json."""
    model, lines = load_checkpoint(folder), read_metrics(folder)
    last = lines[-1] if lines else {"seconds": 0.0, "tokens": 0}
    card: dict[str, Any] = {
        "name": recipe.name,
        "summary": recipe.summary,
        "recipe": recipe.name,
        "seed": recipe.training.seed,
        "data": recipe.data_note,
        "licence": recipe.licence,
        "n_params": model.cfg.n_params,
        "train_seconds": round(last["seconds"], 1),
        "n_tokens": int(last["tokens"]),
        "metrics": _rounded(measured(model, recipe.data) | _grokking(lines)),
        "heads": head_rows(model),
        "example_prompts": list(recipe.example_prompts),
        "made_with": {
            "command": f"workbench train {recipe.name}",
            "steps": recipe.training.steps,
            "checkpoints": checkpoint_steps(folder),
            "stored_as": "float16",
            "workbench": metadata.version("interp-workbench"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "train_seconds": "wall clock; other jobs ran on the same two cores",
        },
    }
    write_atomically(folder / "card.json", json.dumps(card, indent=1, ensure_ascii=False))
    return card


def measured(model: Transformer, data: str) -> dict[str, float]:
    """The card's metrics of a model trained on "python", "repeats" or "modular-addition"."""
    if data == "modular-addition":
        return addition_metrics(model)
    numbers = text_metrics(model) if data == "python" else {}
    repeats = make_repeats(model.cfg.d_vocab, model.cfg.n_ctx).measure(model)
    return numbers | {f"repeats_{name}": value for name, value in repeats.items()}


def text_metrics(model: Transformer, text: str | None = None) -> dict[str, float]:
    """Loss on the bundled held-out text, in rows of n_ctx tokens after BOS, and in-context learning.

    `held_out_nats_per_token` is comparable between models of one tokenizer, `held_out_bits_per_byte`
    between all. `in_context_learning_nats` is the mean loss at positions 239 to 249 minus that at 19 to 29:
    the more negative, the more the context helps.
    """
    assert model.tokenizer is not None
    ids = encoded(model.tokenizer, held_out_text() if text is None else text)
    n_ctx = model.cfg.n_ctx
    starts = np.arange(0, len(ids) - n_ctx, n_ctx)
    losses = torch.cat(
        [
            position_losses(model, text_rows(ids, starts[row : row + _ROWS_AT_ONCE], n_ctx, 0))
            for row in range(0, len(starts), _ROWS_AT_ONCE)
        ]
    )
    # A byte-level token's letters are its bytes.
    pieces = [model.tokenizer.backend.id_to_token(i) or "" for i in range(model.cfg.d_vocab)]
    size = np.array([len(piece) for piece in pieces])
    n_bytes = int(size[ids[: len(starts) * n_ctx]].sum())
    late, early = (losses[:, first : last + 1].mean() for first, last in (LATE, EARLY))
    return {
        "held_out_nats_per_token": float(losses.double().mean()),
        "held_out_bits_per_byte": float(losses.double().sum()) / math.log(2) / n_bytes,
        "held_out_tokens": losses.numel(),
        "in_context_learning_nats": float(late - early),
    }


def addition_metrics(model: Transformer) -> dict[str, float]:
    """Loss and accuracy on both parts of the table of sums, and how few frequencies carry the embedding.

    `embedding_frequencies` is the least number of frequencies that hold 90 % of W_E's power over the
    numbers, the mean left out; a random embedding needs 50 of 56.
    """
    power = frequency_power(model.W_E[:MODULUS].detach())
    held = power.sort(descending=True).values.cumsum(0) / power.sum()
    n_frequencies = int((held < 0.9).sum()) + 1
    return ModularAddition(MODULUS).measure(model) | {"embedding_frequencies": n_frequencies}


def frequency_power(embedding: Float[Tensor, "number d_model"]) -> Float[Tensor, " frequency"]:
    """Power of an embedding at the frequencies 1, 2, … (p - 1)/2 over the numbers 0 … p - 1."""
    return torch.fft.rfft(embedding.double(), dim=0).abs().pow(2).sum(1)[1:]


def head_rows(model: Transformer) -> list[dict[str, Any]]:
    """Every head's behaviours on 32 random repeats, with 95 % intervals and chance levels."""
    if not any(block.has_attn for block in model.blocks):
        return []
    try:
        table = head_scores(model, n_prompts=32, seed=0).table()
    except UnsupportedError:
        return []  # a context too short for repeats
    table = table[table["behaviour"].isin(CARD_BEHAVIOURS)]
    columns = ["layer", "head", "behaviour", "value", "low", "high", "chance"]
    return [_rounded(row) for row in table[columns].to_dict("records")]


def _grokking(lines: list[dict[str, int | float]]) -> dict[str, float]:
    """When the test accuracy first passed 99.9 %, and the training accuracy before it."""
    steps = {}
    for part in ("train", "test"):
        reached = [line["step"] for line in lines if line.get(f"{part}_accuracy", 0) > _GROKKED]
        if reached:
            steps[f"{part}_learned_at_step"] = reached[0]
    return steps


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in row.items()
    }
