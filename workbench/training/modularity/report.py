"""All that is measured of one network's modularity, with the task's loss and the wiring, against shuffles.

Q, ncut and components do not change when units trade places, wiring does not change when modules merge, and
both are easy to improve at the cost of the task: so the three are reported together or not at all.

All is measured twice where the loss can be: on the network as it is, against shuffles of its weights; and on
what is left when it is pruned at a stated rise of the loss, against rewirings (`null.py`). After an L1 penalty
the first says nothing of modules: the shuffle of a nearly sparse network is made of fragments of high Q.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.modularity.graph import (
    Block,
    Sizes,
    UnitGraph,
    blocks_of,
    by_group,
    canonical,
    reordered,
    unit_graph,
)
from workbench.training.modularity.measures import (
    check_pairs,
    check_sides,
    cross_talk,
    cross_talk_of_pairs,
    wiring,
)
from workbench.training.modularity.null import Score, rewired, shuffled
from workbench.training.modularity.partitions import Partition, best_cut, best_q
from workbench.training.modularity.pruning import LossOf, Pruning, alive, prune
from workbench.training.wires import Wires

_UNITS = {
    "Newman Q": "Q",
    "modules": "count",
    "wiring length": "weight × distance",
    "mean wire length": "distance",
    "cross-talk": "share of path mass",
    "components": "count",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How modularity is measured.

    Args:
        n_clusters: k of the normalised cut.
        n_shuffles: networks in the null.
        nonzero_only: shuffle weights among the places of weights that are not zero, and rewire nothing.
        trials: runs of the search for the best Q, for the network and for each shuffle.
        tolerance: how far pruning may raise the loss; needed with `loss_of`.
        sides: module of each unit of the input and the output groups, for the cross-talk; -1 = in none.
        apart: in place of sides, (inputs, outputs) → which of their units should not be joined.

    Raises:
        ConfigError: numbers that cannot be meant, or both sides and pairs.
    """

    n_clusters: int = 4
    n_shuffles: int = 50
    nonzero_only: bool = False
    trials: int = 3
    tolerance: float | None = None
    sides: Mapping[str, Sequence[int] | np.ndarray] | None = None
    apart: Mapping[tuple[str, str], np.ndarray] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sides and self.apart:
            raise ConfigError("cross-talk is between modules or between pairs: give one of the two")
        for name, low in {"n_clusters": 2, "n_shuffles": 2, "trials": 1, "seed": 0}.items():
            if (value := getattr(self, name)) < low:
                raise ConfigError(f"{name} must be at least {low}, not {value}")


@dataclass(frozen=True, eq=False)
class Modularity:
    """Task loss, modularity and wiring of one network, each against the network shuffled.

    Args:
        modules: of each group's units, in the partition of best Q; -1 = no wires.
        clusters: the same for the normalised cut.
        pruning: what was pruned, if the loss could be measured.
        wired_share: part of all weight whose wires have a length.
    """

    scores: tuple[Score, ...]
    modules: dict[str, Int[np.ndarray, " _"]]
    clusters: dict[str, Int[np.ndarray, " _"]]
    pruning: Pruning | None
    wired_share: float
    options: Options

    def __getitem__(self, measure: str) -> Score:
        """One measure by its name in the table.

        Raises:
            ConfigError: nothing of that name was measured.
        """
        found = {score.measure: score for score in self.scores}
        if measure not in found:
            raise ConfigError(f"no measure {measure!r}; there are {', '.join(found)}")
        return found[measure]

    def table(self) -> pd.DataFrame:
        """Tidy: measure value null_mean null_std z percentile n_null seed unit."""
        rows = [
            (s.measure, s.value, s.mean, s.std, s.z, s.percentile, len(s.null), s.unit)
            for s in self.scores
        ]
        columns = ["measure", "value", "null_mean", "null_std", "z", "percentile", "n_null", "unit"]
        table = pd.DataFrame(rows, columns=columns)
        table.insert(7, "seed", self.options.seed)
        return table


def modularity(
    wires: Sequence[Wires],
    groups: Sizes,
    *,
    loss: float,
    layout: Layout | None = None,
    loss_of: LossOf | None = None,
    options: Options | None = None,
) -> Modularity:
    """Newman's Q, normalised cut, components, wiring and cross-talk, with their shuffled nulls.

    Args:
        loss: of the task, measured; the table opens with it.
        layout: where units stand; without one, the wiring length is NaN.
        loss_of: the loss with only some wires, for the components after pruning.

    Raises:
        ConfigError: weights that make no graph, or options that do not fit the network.
    """
    options = options or Options()
    if loss_of is not None and options.tolerance is None:
        raise ConfigError("pruning needs a tolerance: how far may it raise the loss?")
    probe = _probe(wires, groups, layout, options)
    pruning = None
    if loss_of is not None and options.tolerance is not None:
        pruning = prune(wires, groups, loss_of, tolerance=options.tolerance)
    seen = probe.measure(probe.blocks, 0)
    nulls = probe.nulls(probe.shuffles(probe.blocks))
    scores = [Score("task loss", loss, "loss", np.empty(0))]
    scores += [_score(name, seen.values[name], nulls[name], options) for name in seen.values]
    if pruning is not None:
        scores += _pruned(pruning, probe, options)
    return Modularity(
        scores=tuple(scores),
        modules=by_group(seen.graph.spread(seen.modules.labels), groups, probe.order),
        clusters=by_group(seen.graph.spread(seen.clusters.labels), groups, probe.order),
        pruning=pruning,
        wired_share=wiring(probe.blocks, probe.lengths).share,
        options=options,
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    values: dict[str, float]
    graph: UnitGraph
    modules: Partition
    clusters: Partition


@dataclass(frozen=True, eq=False)
class _Probe:
    """A network in canonical order, and what measuring it or a shuffle of it takes."""

    blocks: tuple[Block, ...]
    groups: Sizes
    order: dict[str, Int[np.ndarray, " _"]]
    lengths: dict[str, Float[np.ndarray, "_ _"]]
    sides: dict[str, Int[np.ndarray, " _"]]
    apart: dict[tuple[str, str], Bool[np.ndarray, "_ _"]]
    options: Options

    def measure(self, blocks: Sequence[Block], index: int) -> _Seen:
        """All measures but those that need a loss; the same search for the network and for a shuffle."""
        graph = unit_graph(blocks, self.groups)
        seed = int(np.random.SeedSequence((self.options.seed, index)).generate_state(1)[0])
        modules = best_q(graph, trials=self.options.trials, seed=seed)
        clusters = best_cut(graph, self.options.n_clusters, seed=seed)
        wire = wiring(blocks, self.lengths)
        values = {
            "Newman Q": modules.value,
            "modules": float(modules.n_modules),
            "normalised cut": clusters.value,
            "wiring length": wire.total if self.lengths else float("nan"),
            "mean wire length": wire.mean,
        }
        if self.sides:
            values["cross-talk"] = cross_talk(blocks, self.sides)
        if self.apart:
            values["cross-talk"] = cross_talk_of_pairs(blocks, self.apart)
        return _Seen(values, graph, modules, clusters)

    def shuffles(self, blocks: Sequence[Block]) -> list[tuple[Block, ...]]:
        """The null's networks, the same in every call."""
        seeds = [(self.options.seed, index) for index in range(1, self.options.n_shuffles + 1)]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return [shuffled(blocks, rng, nonzero_only=self.options.nonzero_only) for rng in rngs]

    def rewirings(self, blocks: Sequence[Block]) -> list[tuple[Block, ...]]:
        """The networks of the null of a pruned network, the same in every call."""
        seeds = [(self.options.seed, index) for index in range(1, self.options.n_shuffles + 1)]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        if self.options.nonzero_only:
            return [shuffled(blocks, rng, nonzero_only=True) for rng in rngs]
        return [rewired(blocks, rng) for rng in rngs]

    def nulls(self, networks: Sequence[Sequence[Block]]) -> dict[str, Float[np.ndarray, " null"]]:
        """Every measure of every network of a null."""
        rows = [self.measure(blocks, index).values for index, blocks in enumerate(networks, 1)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _probe(
    wires: Sequence[Wires], groups: Sizes, layout: Layout | None, options: Options
) -> _Probe:
    blocks = blocks_of(wires, groups)
    sides = {name: np.asarray(labels) for name, labels in (options.sides or {}).items()}
    if sides:
        check_sides(blocks, groups, sides)
    apart = {pair: np.asarray(mask) for pair, mask in (options.apart or {}).items()}
    check_pairs(blocks, groups, apart)
    order = canonical(blocks, groups)
    found = {w.name: layout.distances(w) for w in wires} if layout is not None else {}
    lengths = {
        w.name: distance.cpu().numpy()[np.ix_(order[w.source], order[w.target])]
        for w in wires
        if (distance := found.get(w.name)) is not None
    }
    # The outputs of a tied unembedding are the tokens, in the tokens' order.
    orders = {"logits": order["tokens"], **order} if "tokens" in order else order
    sides = {name: labels[orders[name]] for name, labels in sides.items()}
    apart = {pair: mask[np.ix_(orders[pair[0]], orders[pair[1]])] for pair, mask in apart.items()}
    return _Probe(reordered(blocks, order), groups, order, lengths, sides, apart, options)


def _score(name: str, value: float, null: Float[np.ndarray, " shuffle"], options: Options) -> Score:
    """A measure with its null; `normalised cut` is the one whose unit depends on the options."""
    unit = _UNITS.get(name, f"sum over {options.n_clusters} clusters")
    return Score(name, value, unit, np.empty(0) if np.isnan(value) else null)


def _pruned(pruning: Pruning, probe: _Probe, options: Options) -> list[Score]:
    """What pruning left, against the same wires between other units: live units and wires cannot differ."""
    masks, order = pruning.masks, probe.order
    live = {name: mask.cpu().numpy() for name, mask in masks.items()}
    left = [
        replace(b, size=b.size * live[b.name][np.ix_(order[b.source], order[b.target])])
        for b in probe.blocks
    ]
    networks, scores = probe.rewirings(left), []
    if pruning.live.n_units >= options.n_clusters:
        seen, nulls = probe.measure(left, 0).values, probe.nulls(networks)
        pruned = [_score(name, value, nulls[name], options) for name, value in seen.items()]
        scores = [replace(score, measure=f"{score.measure}, pruned") for score in pruned]
    parts = [float(alive(blocks, probe.groups).n_components) for blocks in networks]
    scores.append(_score("components", float(pruning.live.n_components), np.array(parts), options))
    plain = {
        "live units": (float(pruning.live.n_units), "count"),
        "live wires": (float(pruning.live.n_wires), "count"),
        "pruning threshold": (pruning.threshold, "weight"),
        "loss rise allowed": (pruning.tolerance, "loss"),
        "loss before pruning": (pruning.base_loss, "loss"),
        "loss after pruning": (pruning.loss, "loss"),
        "loss without dead paths": (pruning.live_loss, "loss"),
    }
    return scores + [Score(name, value, unit, np.empty(0)) for name, (value, unit) in plain.items()]
