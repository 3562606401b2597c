"""Where units stand, and how far apart: on a line, on a grid, on a ring; units may share a place.

    line    x_j = linspace(1/2n, 1 − 1/2n, n)                    distance |x_j − x_k|
    grid    the same along rows and columns of [0, 1]²           distance |Δx| + |Δy|, or √(Δx² + Δy²)
    ring    ½ + r (cos θ_j, sin θ_j), θ_j = 2π (j + ½) / n

Each layer has a line or square of its own; the gap between two layers is not in the distance but is the
penalty's `gap` (Liu, Gan, Tegmark 2023, "Seeing is Believing", whose images use the Manhattan distance).
Tokens and positions of a lookup have no place: wires from them have no length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.mlp import MLP
from workbench.training.wires import Network, Wires, groups

Places = Float[Tensor, "unit axis"]
Metric = Literal["manhattan", "euclidean"]
_NO_PLACE = ("tokens", "positions")


def line(n: int) -> Places:
    """Evenly spaced over [0, 1], half a step from either end."""
    return ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]


def grid(rows: int, columns: int) -> Places:
    """Cells of a square, row by row: unit `row · columns + column` stands at (x, y)."""
    y, x = torch.meshgrid(line(rows)[:, 0], line(columns)[:, 0], indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def ring(n: int, *, radius: float = 0.25) -> Places:
    """Evenly spaced on a circle around the middle of the square."""
    angles = 2 * math.pi * line(n)[:, 0]
    return 0.5 + radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def folded(places: Places, times: int) -> Float[Tensor, "folded axis"]:
    """The same places once for each block of units: tokens read side by side."""
    return places.repeat(times, 1)


@dataclass(frozen=True, eq=False)
class Layout:
    """The place of every unit, by group; a group that is not named has no place.

    Raises:
        ConfigError: places on lines and on squares at once, or coordinates that are not finite.
    """

    places: Mapping[str, Float[Tensor, "_ axis"]]
    metric: Metric = "manhattan"
    _distances: dict[tuple[str, str], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len({places.shape[1] for places in self.places.values()}) > 1:
            found = {name: places.shape[1] for name, places in self.places.items()}
            raise ConfigError(
                f"every group needs as many coordinates as the next: they have {found}"
            )
        for name, places in self.places.items():
            if not bool(places.isfinite().all()):
                raise ConfigError(f"the places of {name!r} are not all finite")

    def distances(self, wires: Wires) -> Float[Tensor, "source target"] | None:
        """How long each wire is, in float64; None where an end has no place.

        Raises:
            ConfigError: more or fewer places than units.
        """
        ends = wires.source, wires.target
        if any(end not in self.places for end in ends):
            return None
        if ends not in self._distances:
            power = 1.0 if self.metric == "manhattan" else 2.0
            source, target = (self.places[end].double() for end in ends)
            self._distances[ends] = (
                # The quick way by matrix products is exact to 1e-8 only.
                torch.cdist(source, target, p=power, compute_mode="donot_use_mm_for_euclid_dist")
            )
        found = self._distances[ends]
        if found.shape != wires.weight.shape:
            raise ConfigError(
                f"{wires.name} joins {list(wires.weight.shape)} units {ends[0]!r} and {ends[1]!r}; "
                f"the layout has places for {list(found.shape)}"
            )
        return found


def line_layout(model: Network) -> Layout:
    """Every group on a line of its own, folded inputs on one; published for all MLPs but that of images."""
    places = {name: line(n) for name, n in groups(model).items() if name not in _NO_PLACE}
    if isinstance(model, MLP):
        places["inputs"] = folded(line(model.cfg.d_fold), model.cfg.in_fold)
    return Layout(places)


def grid_layout(
    model: Network,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    *,
    rings: Sequence[str] = (),
    metric: Metric = "manhattan",
) -> Layout:
    """Every group on a square of its own.

    Args:
        shapes: rows and columns of a group (of one fold, for inputs); square numbers need none.
        rings: groups that stand on a circle instead, as the ten digits of the published MNIST net do.

    Raises:
        ConfigError: a shape that does not hold the group, or a group that this model lacks.
    """
    sizes = {name: n for name, n in groups(model).items() if name not in _NO_PLACE}
    given = shapes or {}
    if unknown := sorted((set(given) | set(rings)) - set(sizes)):
        raise ConfigError(f"{model.name} has no group {unknown[0]!r}; it has {', '.join(sizes)}")
    fold = model.cfg.in_fold if isinstance(model, MLP) else 1
    places = {}
    for name, n in sizes.items():
        times = fold if name == "inputs" else 1
        each = n // times
        one = ring(each) if name in rings else _cells(name, each, given.get(name))
        places[name] = folded(one, times)
    return Layout(places, metric)


def _cells(name: str, n: int, shape: tuple[int, int] | None) -> Places:
    rows, columns = shape or (math.isqrt(n), math.isqrt(n))
    if rows * columns != n:
        raise ConfigError(
            f"{name!r} has {n} units, a grid of {rows} × {columns} has {rows * columns} cells: "
            f"give shapes={{{name!r}: (rows, columns)}}, or put it on a ring"
        )
    return grid(rows, columns)
