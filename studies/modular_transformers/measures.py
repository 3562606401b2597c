"""What is measured of one trained model: loss, heads, composition, wiring, modules, and how it can be read.

    in use      a head whose output, set to its mean, costs more than 1 % of what the model gains over guessing
    channels    (Σ_c p_c)² / Σ_c p_c²,   p_c = squared norm of what a head reads from, or writes to, channel c
    top share   Σ of the largest 1 % of w² / Σ w²,   over the entries of W_OV or W_QK, channel by channel
    spread      (Σ |w|)² / (n Σ w²), mean over the matrices: 1 = all alike, 2/π = Gaussian, 1/n = one weight

Channels and top share are exact, ask for no threshold, and depend on the basis of the stream but not on that
inside a head. In a model without a penalty no basis of the stream is special: there they are near those of
random heads of the same shape, which stand beside them.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from studies.induction_heads.composing import Cut, Rows, heads_table
from workbench.composition.scores import composition_scores
from workbench.models.transformer import Transformer
from workbench.prompts import random_repeats
from workbench.sites import Head, Site
from workbench.training.layouts import line_layout
from workbench.training.modularity import Options, modularity
from workbench.training.regularizers.swaps import Swaps
from workbench.training.regularizers.wiring import mean_wire_length
from workbench.training.tasks import Task
from workbench.training.wires import wires
from workbench.weights import HeadWeights, effective_weights

NEEDED, TOP, LIVE = 0.01, 0.01, 0.01
ROUNDS = 20
PROMPTS = 32


def model_tables(
    model: Transformer, task: Task, seed: int, n_shuffles: int
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Of the whole model, of each head, and of each pair through keys.

    Args:
        n_shuffles: networks behind the chance level of Newman's Q; 0 leaves Q out.
    """
    rows = random_repeats(model, PROMPTS, model.cfg.n_ctx, seed)
    heads, pairs = head_table(model, task, rows, seed), pair_table(model, seed)
    found = task.measure(model) | composed(model, heads, pairs, rows)
    found |= summary_of_heads(heads) | wiring_of(model) | sparsity_of(model)
    if n_shuffles:
        found |= modules_of(model, found["loss"], n_shuffles, seed)
    return found, heads, pairs


def head_table(model: Transformer, task: Task, rows: Rows, seed: int) -> pd.DataFrame:
    """Scores on random repeats with their chance, copying, what the head is needed for, how it can be read."""
    scored = heads_table(model, rows, seed).drop(columns="model")
    scored = scored[[c for c in scored if not c.endswith(("_low", "_high"))]]
    weights = effective_weights(model)
    own = [
        {"layer": head.layer, "head": head.head} | legibility(of_head)
        for head, of_head in weights.each_head()
    ]
    needed = [(cost.layer, cost.head, value) for cost, value in costs_of_heads(model, task)]
    costs = pd.DataFrame(needed, columns=["layer", "head", "cost"])
    keys = ["layer", "head"]
    return scored.merge(pd.DataFrame(own), on=keys).merge(costs, on=keys)


def costs_of_heads(model: Transformer, task: Task) -> Iterator[tuple[Head, float]]:
    """By how much the held-out loss rises when a head writes its mean, as a share of the gain over guessing."""
    kept: dict[int, Tensor] = {}
    layers = range(model.cfg.n_layers)
    see = [
        (model.site_hook(Site("z", layer)), lambda z, hook, layer=layer: kept.update({layer: z}))
        for layer in layers
    ]
    with torch.no_grad(), model.hooks(fwd_hooks=see):
        whole = task.measure(model)["loss"]
    means = {layer: z.mean((0, 1)) for layer, z in kept.items()}
    gain = math.log(model.cfg.d_vocab) - whole
    for layer in layers:
        for head in range(model.cfg.n_heads):
            hook = (model.site_hook(Site("z", layer)), _set_to(head, means[layer][head]))
            with torch.no_grad(), model.hooks(fwd_hooks=[hook]):
                yield Head(layer, head), (task.measure(model)["loss"] - whole) / gain


def _set_to(head: int, mean: Tensor) -> Callable[..., Tensor]:
    def put(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[:, :, head] = mean
        return z

    return put


def legibility(head: HeadWeights) -> dict[str, float]:
    """Channels that are read and written, and the top share of both circuits, beside those of random heads."""
    found = _legibility(*(w.double() for w in (head.W_Q, head.W_K, head.W_V, head.W_O)))
    chance = _chance(*head.W_Q.shape)
    return found | {f"{name}_chance": value for name, value in chance.items()}


def _legibility(W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor) -> dict[str, float]:
    QK, OV = W_Q @ W_K.mT, W_V @ W_O
    squares = (QK.pow(2).sum(1), QK.pow(2).sum(0), OV.pow(2).sum(1), OV.pow(2).sum(0))
    return {
        "channels": float(np.mean([participation(p) for p in squares])),
        "qk_top": top_share(QK),
        "ov_top": top_share(OV),
    }


@cache
def _chance(d_model: int, d_head: int) -> dict[str, float]:
    """Mean over twenty heads of Gaussian weights."""
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(20):
        Q, K, V, O = torch.randn(  # noqa: E741  # the letters of the weights
            4, d_model, d_head, generator=generator, dtype=torch.float64
        )
        draws.append(_legibility(Q, K, V, O.mT))
    return {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}


def participation(p: Float[Tensor, " part"]) -> float:
    """(Σp)² / Σp²: how many of equal size would be as spread out; 0 of nothing."""
    squares = float(p.pow(2).sum())
    return float(p.sum()) ** 2 / squares if squares else 0.0


def top_share(matrix: Float[Tensor, "row column"]) -> float:
    """The share of the squared norm in the largest 1 % of the entries."""
    squares = matrix.pow(2).flatten()
    whole = float(squares.sum())
    return float(squares.topk(round(TOP * len(squares))).values.sum()) / whole if whole else 0.0


def pair_table(model: Transformer, seed: int) -> pd.DataFrame:
    """Every pair of heads through keys: score, chance, z, matching."""
    table = composition_scores(effective_weights(model), n_null=200, seed=seed).table()
    kept = ["writer", "reader", "score", "chance", "z", "matching"]
    return table.loc[table["through"] == "K", kept].reset_index(drop=True)


def composed(
    model: Transformer, heads: pd.DataFrame, pairs: pd.DataFrame, rows: Rows
) -> dict[str, float]:
    """The best induction head's strongest pair through keys, and what cutting it costs."""
    reader = Head(1, int(heads.loc[heads["layer"] == 1].set_index("head")["induction"].idxmax()))
    own = pairs[pairs["reader"] == str(reader)]
    top = own.loc[own["z"].idxmax()]
    cut = Cut(model, effective_weights(model), rows)
    whole = float(cut.scores(reader).mean())
    falls = {
        writer: whole - float(cut.scores(reader, (Head.parse(writer), "K")).mean())
        for writer in own["writer"]
    }
    return {
        "k_z": float(top["z"]),
        "k_matching": float(top["matching"]),
        "k_above": float((pairs["z"] > 10).sum()),
        "k_cut": max(falls.values()) / whole,
    }


def summary_of_heads(heads: pd.DataFrame) -> dict[str, float]:
    """Best scores, how many heads do what, and the means over those in use."""
    used = heads[heads["cost"] > NEEDED]
    later = heads[heads["layer"] == 1]
    best = later.loc[later["induction"].idxmax()]
    found = {
        "induction": float(best["induction"]),
        "induction_chance": float(best["induction_chance"]),
        "copying": float(best["copying"]),
        "previous_token": float(heads["previous_token"].max()),
        "previous_token_chance": float(heads["previous_token_chance"].max()),
        "two_back": float(heads["two_back"].max()),
        "n_induction": float((later["induction"] > 0.4).sum()),
        "n_previous": float((heads["previous_token"] > 0.4).sum()),
        "in_use": float(len(used)),
    }
    # Heads that do nothing may be empty: what is read there says nothing.
    for name in ("channels", "qk_top", "ov_top"):
        found |= {name: used[name].mean(), f"{name}_chance": heads[f"{name}_chance"].mean()}
    return found


def wiring_of(model: Transformer) -> dict[str, float]:
    """The mean length of a wire as units stand, and when they stand as well as swaps alone can place them."""
    layout = line_layout(model)
    found = {"length": mean_wire_length(model, layout)}
    placed, swaps = copy.deepcopy(model), Swaps(layout=layout, reduction="mean")
    for _ in range(ROUNDS):
        if not swaps(placed).gains.sum():
            break
    return found | {"length_placed": mean_wire_length(placed, layout)}


def sparsity_of(model: Transformer) -> dict[str, float]:
    """How unlike the sizes of weights are, and the share that is not next to nothing."""
    sizes = [block.weight.detach().double().abs() for block in wires(model)]
    spread = [participation(size.flatten()) / size.numel() for size in sizes]
    live = sum(int((size > LIVE).sum()) for size in sizes) / sum(size.numel() for size in sizes)
    return {"spread": float(np.mean(spread)), "live": live}


def modules_of(model: Transformer, loss: float, n_shuffles: int, seed: int) -> dict[str, float]:
    """Newman's Q of the attention layers' wires, against the same weights shuffled inside their matrices."""
    inner = [block for block in wires(model) if block.name.startswith("blocks.")]
    sizes: dict[str, int] = {}
    for block in inner:
        sizes[block.source], sizes[block.target] = block.weight.shape
    options = Options(n_shuffles=n_shuffles, trials=1, seed=seed)
    q = modularity(inner, sizes, loss=loss, options=options)["Newman Q"]
    return {"q": q.value, "q_chance": q.mean, "q_chance_std": q.std}
