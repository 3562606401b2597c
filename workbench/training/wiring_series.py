"""Pictures of one run at several steps with the same dots, so that from one to the next only lines change.

Where swaps moved units, the dots move: who stands where is known for inputs and outputs, and found for the
others. A unit is the one after which it is most like before, by its wires to units that are followed already,
from the tokens or inputs up: the cheapest assignment by squared differences. Units that are as well explained
by staying stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.mlp import MLP
from workbench.training.wires import Network, groups, wires
from workbench.training.wiring_picture import LIMIT, Scale, WiringPicture, wiring_picture

MAX_FOLLOWED = 1024
_STAY = 0.05
_ALIKE = 2e-3


@dataclass(frozen=True, eq=False)
class WiringSeries:
    """One picture for each step.

    Args:
        stands: of each dot of the first picture, the dot of each picture at whose place it stands.
    """

    pictures: tuple[WiringPicture, ...]
    steps: tuple[int, ...]
    stands: Int[np.ndarray, "step dot"]


def wiring_series(
    models: Sequence[Network],
    steps: Sequence[int],
    layout: Layout | None = None,
    *,
    limit: int = LIMIT,
    scale: Scale | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> WiringSeries:
    """The pictures of one run's snapshots.

    Args:
        limit: lines of each picture.

    Raises:
        ConfigError: no snapshots, not one step for each, or networks of unlike shape.
    """
    if not models or len(models) != len(steps):
        raise ConfigError(f"{len(models)} snapshots with {len(steps)} steps: give one for each")
    sizes = groups(models[0])
    if any(groups(model) != sizes for model in models):
        raise ConfigError("the snapshots have other groups of units: they are not of one run")
    pictures = tuple(
        wiring_picture(model, layout, limit=limit, scale=scale, labels=labels) for model in models
    )
    order = {name: np.arange(n) for name, n in sizes.items()}
    stands = [_dots_at(pictures[0], order)]
    for before, after in pairwise(models):
        moved = followed(before, after)
        order = {name: moved[name][order[name]] for name in sizes}
        stands.append(_dots_at(pictures[0], order))
    return WiringSeries(pictures, tuple(steps), np.stack(stands))


def followed(before: Network, after: Network) -> dict[str, Int[np.ndarray, " _"]]:
    """Where each unit of `before` stands in `after`, by group."""
    found = {name: np.arange(n) for name, n in groups(before).items() if name in _still(before)}
    found |= _known(before, after)
    pairs = list(zip(wires(before), wires(after), strict=True))
    for name, n in groups(before).items():
        if name in found:
            continue
        old, new = [], []
        for one, two in pairs:
            ends = one.source, one.target
            if name not in ends or (other := ends[ends[0] == name]) not in found:
                continue
            matrices = [each.weight.detach().double().cpu().numpy() for each in (one, two)]
            a, b = (m.T if other == one.source else m for m in matrices)
            old.append(a)
            new.append(b[:, found[other]])
        stays = np.arange(n)
        found[name] = stays if not old or n > MAX_FOLLOWED else _matched(old, new)
    return found


def _still(model: Network) -> tuple[str, ...]:
    return ("tokens", "positions", "logits") if not isinstance(model, MLP) else ("tokens",)


def _known(before: Network, after: Network) -> dict[str, Int[np.ndarray, " _"]]:
    """Inputs and outputs of an MLP: their numbers go with them."""
    if not (isinstance(before, MLP) and isinstance(after, MLP)):
        return {}
    inputs = after.in_perm.argsort()[before.in_perm].cpu().numpy()
    fold = np.arange(before.cfg.in_fold)[:, None] * before.cfg.d_fold
    outputs = after.out_perm.argsort()[before.out_perm].cpu().numpy()
    return {"inputs": (fold + inputs).ravel(), "outputs": outputs}


def _matched(old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> Int[np.ndarray, " unit"]:
    a, b = np.concatenate(old, axis=1), np.concatenate(new, axis=1)
    cost = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    # Units almost without wires are all alike: none of them should seem to move.
    least = _ALIKE * (a**2).sum(1).max() + 1e-12
    cost -= _STAY * np.diag((a**2).sum(1) + (b**2).sum(1)) + least * np.eye(len(a))
    return linear_sum_assignment(cost)[1]


def _dots_at(
    picture: WiringPicture, order: Mapping[str, Int[np.ndarray, " _"]]
) -> Int[np.ndarray, " dot"]:
    """Dots of one group stand together, in order of their units; one run of them for each depth."""
    dots, stands = picture.dots, np.arange(len(picture.dots.x))
    first = stands - dots.index
    for number, name in enumerate(dots.groups):
        mine = dots.group == number
        stands[mine] = first[mine] + order[name][dots.index[mine]]
    return stands
