"""Angles between what two heads write or read: do they share directions of the stream?

Principal angles between the subspaces that `W_O` writes to, or that `W_Q`, `W_K` or `W_V` read from (Björck and
Golub 1973, "Numerical Methods for Computing Angles Between Linear Subspaces"): 0° is a shared direction, 90°
one that the other subspace does not meet. By chance cos² is on average the larger dimension over d_model.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import linalg, stats
from torch import Tensor

from workbench.errors import ConfigError, UnsupportedError
from workbench.sites import Head
from workbench.weights import EffectiveWeights

Side = Literal["Q", "K", "V", "O"]


class Subspace(NamedTuple):
    """Where a head writes ("O") or what its queries, keys or values read."""

    head: Head
    side: Side


@dataclass(frozen=True, eq=False)
class PrincipalAngles:
    """Angles in degrees, smallest first, and those of random subspaces of the same dimensions.

    Args:
        overlap: mean cos² of the angles, 1 = the smaller subspace lies in the larger, with its chance level.
    """

    first: str
    second: str
    angles: Float[np.ndarray, " rank"]
    null: Float[np.ndarray, "draw rank"]
    overlap: float
    chance: float

    def table(self) -> pd.DataFrame:
        """Tidy: first, second, rank, value, null_mean, null_std, percentile (of chance), unit."""
        return pd.DataFrame(
            {
                "first": self.first,
                "second": self.second,
                "rank": np.arange(len(self.angles)),
                "value": self.angles,
                "null_mean": self.null.mean(0),
                "null_std": self.null.std(0, ddof=1),
                "percentile": [
                    stats.percentileofscore(drawn, angle, kind="mean")
                    for drawn, angle in zip(self.null.T, self.angles, strict=True)
                ],
                "unit": "degrees",
            }
        )


def principal_angles(
    weights: EffectiveWeights,
    first: Subspace | tuple[Head, Side],
    second: Subspace | tuple[Head, Side],
    *,
    n_null: int = 200,
    seed: int = 0,
) -> PrincipalAngles:
    """Angles between two subspaces of the stream, 0° = shared to 90° = apart, against random ones.

    Args:
        first: a head and which of its weights: `(Head(0, 1), "O")` is what 0.1 writes.
        n_null: random pairs behind the chance level.

    Raises:
        SiteError: no such head.
        ConfigError: another weight than Q, K, V or O, or fewer than two draws.
        UnsupportedError: a head whose weight is zero.
    """
    if n_null < 2:
        raise ConfigError(f"a chance level needs 2 draws or more, not {n_null}")
    one, other = Subspace(*first), Subspace(*second)
    basis, against = (_basis(weights, subspace) for subspace in (one, other))
    angles = np.degrees(linalg.subspace_angles(basis, against))[::-1]
    d_model, sizes = weights.cfg.d_model, (basis.shape[1], against.shape[1])
    return PrincipalAngles(
        first=f"{one.head} W_{one.side}",
        second=f"{other.head} W_{other.side}",
        angles=angles,
        null=_random_angles(d_model, sizes, n_null, seed),
        overlap=float(np.mean(np.cos(np.radians(angles)) ** 2)),
        chance=max(sizes) / d_model,
    )


def _basis(weights: EffectiveWeights, subspace: Subspace) -> Float[np.ndarray, "d_model rank"]:
    if subspace.side not in get_args(Side):
        raise ConfigError(f"no weight {subspace.side!r} of a head: there are Q, K, V and O")
    weight: Tensor = getattr(weights.head(subspace.head), f"W_{subspace.side}")
    columns = weight.mT if subspace.side == "O" else weight
    basis = linalg.orth(columns.double().cpu().numpy())
    if not basis.shape[1]:
        raise UnsupportedError(
            f"W_{subspace.side} of head {subspace.head} is zero: it spans no subspace"
        )
    return basis


def _random_angles(
    d_model: int, sizes: tuple[int, int], n_null: int, seed: int
) -> Float[np.ndarray, "draw rank"]:
    # Only their mutual position counts, so one of the two may lie along the first axes.
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(n_null):
        gaussian = torch.randn(d_model, min(sizes), generator=generator, dtype=torch.float64)
        cosines = torch.linalg.svdvals(torch.linalg.qr(gaussian).Q[: max(sizes)])
        drawn.append(np.degrees(np.arccos(cosines.clamp(max=1).numpy())))
    return np.stack(drawn)
