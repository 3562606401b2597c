"""What one unit of a network responds to, over examples of its task, and its strongest wires.

    correlation r    Pearson's, of the activation with a feature
    explained ε²     1 − (n − 1)/(n − k) · (variance within the k values of the feature) / (variance in all)

ε² (Kelley 1935) sees what r cannot, a unit that computes a square, and is 0 on average by chance. A feature
with few different values (a token) has one mean for each; others are cut into bins of as many examples each.
Neurons of an MLP are read after their activation; of a transformer's head, the query and the key that they
hold, or the value; channels of the stream at its end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from workbench.errors import ConfigError, SiteError
from workbench.models.transformer import Transformer
from workbench.training.mlp import MLP
from workbench.training.response_reading import Reading, read_mlp, read_transformer
from workbench.training.wires import Network, groups, wires

MAX_VALUES, N_BINS = 64, 16
N_WIRES, N_EXAMPLES, MIN_SEEN = 12, 12, 2


@dataclass(frozen=True, eq=False)
class Feature:
    """How the activation depends on one thing about the example.

    Args:
        values: of the feature, or the middle of each bin.
        mean: activation at each.
        names: of the values, if they are tokens; else empty.
    """

    name: str
    correlation: float
    explained: float
    values: Float[np.ndarray, " value"]
    mean: Float[np.ndarray, " value"]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One place where the unit was read; `text` says the inputs, or the token with what comes before it."""

    activation: float
    text: str


@dataclass(frozen=True)
class Wire:
    """One connection of the unit; `unit` is the one at its other end."""

    block: str
    group: str
    unit: int
    weight: float


@dataclass(frozen=True, eq=False)
class Responses:
    """What a unit responds to.

    Args:
        what: which activation was read ("activation", "query", "key", "value", "logit"); empty = none.
        features: those that explain most first.
        highest: examples of the highest activation; `lowest` those of the lowest.
        incoming: strongest first; `outgoing` likewise.
        unread: why there is no activation, if there is none.
    """

    group: str
    index: int
    what: str
    n_examples: int
    mean: float
    std: float
    features: tuple[Feature, ...]
    highest: tuple[Example, ...]
    lowest: tuple[Example, ...]
    incoming: tuple[Wire, ...]
    outgoing: tuple[Wire, ...]
    unread: str = ""

    def table(self) -> pd.DataFrame:
        """Tidy: kind name value text, for features (ε²), examples (activation) and wires (weight)."""
        rows = [("feature", f.name, f.explained, f"r = {f.correlation:.3f}") for f in self.features]
        rows += [("highest", str(i), e.activation, e.text) for i, e in enumerate(self.highest)]
        rows += [("lowest", str(i), e.activation, e.text) for i, e in enumerate(self.lowest)]
        for kind, found in (("incoming", self.incoming), ("outgoing", self.outgoing)):
            rows += [(kind, f"{wire.group} {wire.unit}", wire.weight, wire.block) for wire in found]
        return pd.DataFrame(rows, columns=["kind", "name", "value", "text"])


def responses(
    network: Network, task: Any, group: str, index: int, *, what: str | None = None, seed: int = 0
) -> Responses:
    """What a unit responds to over examples of a task.

    Args:
        task: a task, or inputs of the network as a tensor; None = its wires alone.
        group: as in the wires; `index` counts within it.
        what: "query" or "key" for neurons that both share; None = query.

    Raises:
        SiteError: no such group or unit.
        ConfigError: an activation that this unit does not have.
    """
    sizes = groups(network)
    if group not in sizes:
        raise SiteError(f"{network.name} has no group {group!r:.60}; it has {', '.join(sizes)}")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < sizes[group]:
        raise SiteError(f"units of {group!r} run from 0 to {sizes[group] - 1}, not {index!r:.40}")
    incoming, outgoing = _ends(network, group, index)
    reading = _read(network, task, group, index, what, seed)
    if isinstance(reading, str):
        return Responses(
            group, index, "", 0, float("nan"), float("nan"), (), (), (), incoming, outgoing, reading
        )
    values = reading.activation.double().numpy()
    features = [
        feature_of(name, given, values, reading.names.get(name, ()))
        for name, given in reading.features.items()
    ]
    features.sort(key=lambda feature: -feature.explained)
    order = np.argsort(values, kind="stable")
    return Responses(
        group=group,
        index=index,
        what=reading.what,
        n_examples=len(values),
        mean=float(values.mean()),
        std=float(values.std()),
        features=tuple(features),
        highest=tuple(
            Example(float(values[i]), reading.text(i)) for i in order[::-1][:N_EXAMPLES].tolist()
        ),
        lowest=tuple(
            Example(float(values[i]), reading.text(i)) for i in order[:N_EXAMPLES].tolist()
        ),
        incoming=incoming,
        outgoing=outgoing,
    )


def _read(
    network: Network, task: Any, group: str, index: int, what: str | None, seed: int
) -> Reading | str:
    if task is None:
        return "no examples were given"
    with torch.no_grad():
        if isinstance(network, MLP):
            if what not in (None, "activation"):
                raise ConfigError(f"a neuron of an MLP has an activation, and no {what!r:.40}")
            return read_mlp(network, task, group, index, seed)
        assert isinstance(network, Transformer)
        return read_transformer(network, task, (group, index), what, seed)


def feature_of(
    name: str,
    given: Shaped[np.ndarray, " example"],
    activation: Float[np.ndarray, " example"],
    names: tuple[str, ...] | Mapping[int, str] = (),
) -> Feature:
    """How an activation depends on a feature: its means, η² and r."""
    given = given.astype(np.float64)
    different, group = np.unique(given, return_inverse=True)
    if not names and len(different) > MAX_VALUES:
        group = np.argsort(np.argsort(given, kind="stable"), kind="stable") * N_BINS // len(given)
    counts = np.bincount(group)
    middle, mean = (np.bincount(group, part) / counts for part in (given, activation))
    total = float(activation.var())
    free = len(activation) - len(counts)
    within = float(((activation - mean[group]) ** 2).mean())
    explained = 1 - within / total * (len(activation) - 1) / free if total and free else 0.0
    spread = float(given.std()) * total**0.5
    r = float(((given - given.mean()) * (activation - activation.mean())).mean())
    if not names:
        return Feature(name, r / spread if spread else 0.0, explained, middle, mean, ())
    # A token seen once says nothing about tokens; the numbers of tokens are no sizes, so r has no meaning.
    often = np.flatnonzero(counts >= min(MIN_SEEN, counts.max()))
    order = often[np.argsort(-mean[often], kind="stable")]
    spelled = tuple(names[int(i)] for i in different[order])
    return Feature(name, float("nan"), explained, different[order], mean[order], spelled)


def _ends(network: Network, group: str, index: int) -> tuple[tuple[Wire, ...], tuple[Wire, ...]]:
    into: list[Wire] = []
    out: list[Wire] = []
    for block in wires(network):
        if block.target == group:
            into += _strongest(block.name, block.source, block.weight[:, index])
        if block.source == group:
            out += _strongest(block.name, block.target, block.weight[index])
    into.sort(key=lambda wire: -abs(wire.weight))
    out.sort(key=lambda wire: -abs(wire.weight))
    return tuple(into[:N_WIRES]), tuple(out[:N_WIRES])


def _strongest(block: str, group: str, weights: Tensor) -> list[Wire]:
    weights = weights.detach().double().cpu()
    at = weights.abs().argsort(descending=True, stable=True)[:N_WIRES].tolist()
    return [Wire(block, group, i, float(weights[i])) for i in at if weights[i] != 0]
