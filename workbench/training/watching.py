"""What is looked at during training beside the loss: heads, their composition, modularity, wiring.

    Watched(task, default_probes(plan, model))        a task whose measure() says those too

A probe is a number of a model. Heads: the highest induction score (attention to the token after an earlier
copy), and by how much the strongest K-composition exceeds chance. Any network that is not too large: Newman's
Q with the mean and z of a few shuffles, Σ|w|·d and Σ|w|·d / Σ|w|. A probe must not change the model, nor draw
from torch's own generator: the run would no longer be the same without it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from workbench.training.modularity.null import Score, shuffled
from workbench.training.modularity.partitions import best_q
from workbench.training.plan import Plan
from workbench.training.regularizers.wiring import mean_wire_length, wiring_length
from workbench.training.tasks import Examples, Task
from workbench.training.wires import Network, groups, wires

Probe = Callable[[Any], float]
MAX_WIRES = 100_000
"""A search for modules takes a few microseconds a wire: beyond this it would slow training down."""
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
    if (n_wires := sum(block.weight.numel() for block in wires(model))) <= MAX_WIRES:
        many = n_wires > FEW_WIRES
        modules = Modules(N_SHUFFLES_OF_MANY if many else N_SHUFFLES)
        found |= {
            "Q": lambda model: modules(model).value,
            "Q shuffled mean": lambda model: modules(model).mean,
            "Q z": lambda model: modules(model).z,
        }
    found["wiring length"] = lambda model: wiring_length(model, layout)
    found["mean wire length"] = lambda model: _mean_length(model, layout)
    return found


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
    """Newman's Q of the best partition found, with its shuffles; the same weights are searched once."""

    def __init__(self, n_shuffles: int) -> None:
        self.n_shuffles = n_shuffles
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
        try:
            blocks = blocks_of(wires(model), sizes)
        except ConfigError:
            return Score("Newman Q", math.nan, "Q", np.empty(0))
        blocks = reordered(blocks, canonical(blocks, sizes))
        rngs = [np.random.default_rng((0, index)) for index in range(1, self.n_shuffles + 1)]
        networks = [blocks, *(shuffled(blocks, rng) for rng in rngs)]
        found = [best_q(unit_graph(each, sizes), trials=1, seed=0).value for each in networks]
        return Score("Newman Q", found[0], "Q", np.array(found[1:]))
