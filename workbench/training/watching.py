"""What is looked at during training beside the loss: heads, their composition, modularity, wiring.

    Watched(task, default_probes(plan, model))        a task whose measure() says those too

A probe is a number of a model. Heads: the highest induction score (attention to the token after an earlier
copy), and by how much the strongest K-composition exceeds chance. Any network: Newman's Q with the mean and z
of a few shuffles, Σ|w|·d and Σ|w|·d / Σ|w|. A probe must not change the model, nor draw from torch's own
generator: the run would no longer be the same without it.

Of a network of over 100,000 wires, Q is that of its thickest 100,000 alone and called so, since a search takes
microseconds a wire. These are a sparse network, and so the null is that of a pruned one: as many wires at every
unit, between other units (modularity/null.py). It is not to be compared with a Q of all wires.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from workbench.errors import ConfigError, UnsupportedError
from workbench.models.transformer import Transformer
from workbench.results import model_hash
from workbench.training.layouts import Layout
from workbench.training.making import layout_of
from workbench.training.modularity.graph import (
    blocks_of,
    canonical,
    reordered,
    unit_graph,
)
from workbench.training.modularity.null import Score, rewired, shuffled
from workbench.training.modularity.partitions import best_q
from workbench.training.plan import Plan
from workbench.training.regularizers.wiring import mean_wire_length, wiring_length
from workbench.training.tasks import Examples, Task
from workbench.training.wires import Network, Wires, groups, wires

Probe = Callable[[Any], float]
MAX_WIRES = 100_000
"""Modules are sought among no more wires, the thickest ones: a search of all would slow training down."""
FEW_WIRES, N_SHUFFLES, N_SHUFFLES_OF_MANY = 20_000, 6, 3
N_PROMPTS, N_NULL = 8, 20


@dataclass(frozen=True, eq=False)
class Watched:
    """A task whose measurements include probes.

    Args:
        probes: by the name under which their numbers are kept.

    Raises:
        ConfigError: a probe named like a number of the task is found when it is first measured.
    """

    task: Task
    probes: Mapping[str, Probe] = field(default_factory=dict)

    def batch(self, seed: int, step: int) -> Examples:
        """The task's own."""
        return self.task.batch(seed, step)

    def measure(self, model: Any) -> dict[str, float]:
        """The task's own numbers, then each probe's."""
        measured = self.task.measure(model)
        if twice := sorted(set(measured) & set(self.probes)):
            raise ConfigError(f"the task measures {twice[0]!r} itself: give the probe another name")
        with torch.no_grad():
            seen = {name: float(probe(model)) for name, probe in self.probes.items()}
        return measured | seen


def default_probes(plan: Plan, model: Network) -> dict[str, Probe]:
    """All that fit the network and cost little beside its training."""
    layout = layout_of(plan, model)
    found: dict[str, Probe] = {}
    if isinstance(model, Transformer):
        found |= _head_probes(model)
    found |= _modularity_probes(sum(block.weight.numel() for block in wires(model)))
    found["wiring length"] = lambda model: wiring_length(model, layout)
    found["mean wire length"] = lambda model: _mean_length(model, layout)
    return found


def _modularity_probes(n_wires: int) -> dict[str, Probe]:
    """Newman's Q and its null, of all wires or of the thickest."""
    modules = Modules(N_SHUFFLES_OF_MANY if n_wires > FEW_WIRES else N_SHUFFLES)
    name, null = "Q", "shuffled"
    if n_wires > MAX_WIRES:
        modules = Modules(N_SHUFFLES_OF_MANY, MAX_WIRES)
        name, null = f"Q of the thickest {MAX_WIRES:,} wires", "rewired"
    return {
        name: lambda model: modules(model).value,
        f"{name} {null} mean": lambda model: modules(model).mean,
        f"{name} z": lambda model: modules(model).z,
    }


def _head_probes(model: Transformer) -> dict[str, Probe]:
    """Those of the heads that can be taken of this model now, and so of it at any time."""
    layers = [block for block in model.blocks if block.attn is not None]
    found: dict[str, Probe] = {}
    tried: dict[str, Probe] = {"induction score": induction_score}
    if len(layers) > 1:
        tried["K-composition excess"] = composition_excess
    was_training = model.training
    for name, probe in tried.items() if layers and model.cfg.causal else ():
        try:
            probe(model.eval())
        except UnsupportedError:
            continue
        finally:
            model.train(was_training)
        found[name] = probe
    return found


@torch.no_grad()
def induction_score(model: Transformer) -> float:
    """The highest of all heads: attention to the token after an earlier copy, on random repeats."""
    from workbench.heads.behaviours import head_scores

    scores = head_scores(model, n_prompts=N_PROMPTS, seed=0)
    return scores.value(scores.best("induction"), "induction")


@torch.no_grad()
def composition_excess(model: Transformer) -> float:
    """The strongest K-composition of any two heads, less that of random heads."""
    from workbench.composition.scores import composition_scores
    from workbench.weights import effective_weights

    scores = composition_scores(effective_weights(model), n_null=N_NULL, seed=0)
    return float(np.nanmax(scores.excess["K"]))


def _mean_length(model: Network, layout: Layout) -> float:
    """NaN where nothing that has a length has any weight left."""
    try:
        return mean_wire_length(model, layout)
    except ConfigError:
        return math.nan


class Modules:
    """Newman's Q of the best partition found, with its null; the same weights are searched once.

    Args:
        n_shuffles: networks in the null.
        n_thickest: wires that are looked at, the null then rewired; None = all, the null shuffled.
    """

    def __init__(self, n_shuffles: int, n_thickest: int | None = None) -> None:
        self.n_shuffles, self.n_thickest = n_shuffles, n_thickest
        self._seen = ""
        self._score: Score | None = None

    def __call__(self, model: Network) -> Score:
        """Q, and the Q of the shuffled networks; NaN without weights."""
        now = model_hash(model)
        if self._score is None or now != self._seen:
            self._seen, self._score = now, self._search(model)
        return self._score

    def _search(self, model: Network) -> Score:
        sizes = groups(model)
        seen = wires(model)
        if self.n_thickest is not None:
            seen = thickest(seen, self.n_thickest)
        null = shuffled if self.n_thickest is None else rewired
        try:
            blocks = blocks_of(seen, sizes)
        except ConfigError:
            return Score("Newman Q", math.nan, "Q", np.empty(0))
        blocks = reordered(blocks, canonical(blocks, sizes))
        rngs = [np.random.default_rng((0, index)) for index in range(1, self.n_shuffles + 1)]
        networks = [blocks, *(null(blocks, rng) for rng in rngs)]
        found = [best_q(unit_graph(each, sizes), trials=1, seed=0).value for each in networks]
        return Score("Newman Q", found[0], "Q", np.array(found[1:]))


@torch.no_grad()
def thickest(blocks: Sequence[Wires], n: int) -> tuple[Wires, ...]:
    """The same blocks with all wires 0 but the n of largest |w|; more where the least of them have equals."""
    sizes = torch.cat([block.weight.abs().flatten() for block in blocks])
    if n >= sizes.numel():
        return tuple(blocks)
    least = sizes.kthvalue(sizes.numel() - n + 1).values
    return tuple(
        replace(block, weight=block.weight * (block.weight.abs() >= least)) for block in blocks
    )
