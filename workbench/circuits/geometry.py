"""The geometry of QK and OV circuits: symmetry, eigenvalue mass and effective ranks of each head.

    W = A B.T has a core: with the reduced [A B] = U R, W = U C U.T and C = R_A R_B.T is 2·d_head wide,

so norms, singular values and symmetric part of W are those of C, and nothing of size d_model² is built.

    symmetric share        ‖S‖² / ‖W‖², S = (W + W.T) / 2; the rest is antisymmetric
    positive mass          Σ λ⁺ / Σ |λ| over the eigenvalues of S
    rank (participation)   (Σ e)² / Σ e², e = s² the energies of the singular values s
    rank (entropy)         exp of the entropy of e / Σ e
    rank (90 %)            how many singular values hold 90 % of the energy

Random circuits have about half of each of the first two. How many eigenvalues of S are positive says nothing: S
is ½ [A B] [[0, I], [I, 0]] [A B].T, so by Sylvester's law of inertia exactly d_head are positive and d_head
negative whatever training does, as long as 2·d_head ≤ d_model and the factors have full rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from workbench.errors import ConfigError, UnsupportedError
from workbench.rotary import rotate
from workbench.scoring import Progress
from workbench.weights import EffectiveWeights, HeadWeights

UNITS = {
    "symmetric share": "share of energy",
    "positive mass": "share of |eigenvalues|",
    "rank (participation)": "directions",
    "rank (entropy)": "directions",
    "rank (90 %)": "directions",
}
Circuit = Literal["QK", "OV"]
CIRCUITS: tuple[Circuit, ...] = ("QK", "OV")
_CHUNK = 32


class Spectrum(NamedTuple):
    """A circuit's singular values, largest first, and the eigenvalues of its symmetric part, smallest first."""

    singular: Float[Tensor, "*batch rank"]
    symmetric: Float[Tensor, "*batch eigenvalue"]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Every head's measures beside those of random circuits of the same shape."""

    model_name: str
    frame: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Tidy: layer, head, circuit, measure, value, null_mean, null_std, percentile, unit, offset.

        The percentile is that of the value among random circuits.
        """
        return self.frame.copy()


def qk_geometry(
    weights: EffectiveWeights,
    *,
    offset: int = 0,
    n_null: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Geometry:
    """Symmetry, eigenvalue mass and effective ranks of each head's QK and OV circuit, against chance.

    Args:
        offset: query minus key position at which queries and keys meet; matters with rotary positions.
        n_null: random circuits behind each chance level.
        progress: told after every head how many of how many are done.

    Raises:
        ConfigError: fewer than two random circuits.
        UnsupportedError: a model without heads.
    """
    if n_null < 2:
        raise ConfigError(f"a chance level needs 2 draws or more, not {n_null}")
    n_heads, rows = len(weights.heads), []
    if not n_heads:
        raise UnsupportedError(f"{weights.model_name} has no attention, so no heads to measure")
    chance: dict[int, Float[np.ndarray, "draw measure"]] = {}
    for done, (head, held) in enumerate(weights.each_head(), start=1):
        for circuit in CIRCUITS:
            left, right = sides(held, circuit, offset)
            size = int(left.any(0).sum())
            if size and size not in chance:
                chance[size] = _chance(weights.cfg.d_model, size, n_null, seed)
            values = measures(spectrum(left, right)).cpu().numpy()
            place = {"layer": head.layer, "head": head.head, "circuit": circuit}
            rows += [place | row for row in _rows(values, chance.get(size))]
        if progress is not None:
            progress(done, n_heads)
    return Geometry(weights.model_name, pd.DataFrame(rows).assign(offset=offset))


def sides(
    head: HeadWeights, circuit: Circuit, offset: int = 0
) -> tuple[Float[Tensor, "d_model rank"], Float[Tensor, "d_model rank"]]:
    """The two factors of a circuit, `W = left @ right.T`.

    Args:
        offset: query minus key position; matters with rotary positions.

    Raises:
        ConfigError: another circuit.
    """
    if circuit == "OV":
        return head.W_V, head.W_O.mT
    if circuit != "QK":
        raise ConfigError(f"no circuit {circuit!r}: there are QK and OV")
    query = head.W_Q if head.rates is None else rotate(head.W_Q, head.rates, offset)
    return query, head.W_K


def spectrum(
    left: Float[Tensor, "*batch d_model rank"], right: Float[Tensor, "*batch d_model rank"]
) -> Spectrum:
    """The spectra of `left @ right.T`, without the zeros that its rank leaves."""
    rank = left.shape[-1]
    R = torch.linalg.qr(torch.cat([left, right], dim=-1), mode="r").R
    core = R[..., :rank] @ R[..., rank:].mT
    singular = torch.linalg.svdvals(core)[..., :rank]
    return Spectrum(singular, torch.linalg.eigvalsh((core + core.mT) / 2))


def measures(found: Spectrum) -> Float[Tensor, "*batch measure"]:
    """The measures named in `UNITS`, in that order; NaN for a circuit of zeros."""
    energy = found.singular.double().square()
    total = energy.sum(-1)
    share = energy / total[..., None]
    eigenvalues = found.symmetric.double()
    entropy = -torch.special.xlogy(share, share).sum(-1)
    # A rounding error above 90 % must not ask for one direction more.
    missing = share.cumsum(-1) < 0.9 - 1e-9
    return torch.stack(
        [
            eigenvalues.square().sum(-1) / total,
            eigenvalues.clamp(min=0).sum(-1) / eigenvalues.abs().sum(-1),
            1 / share.square().sum(-1),
            entropy.exp(),
            missing.sum(-1) + torch.where(total > 0, 1.0, torch.nan),
        ],
        dim=-1,
    )


def balanced(
    left: Float[Tensor, "row rank"], right: Float[Tensor, "column rank"]
) -> tuple[Float[Tensor, "row rank"], Float[Tensor, "column rank"]]:
    """`U √S` and `V √S`: the same product `left @ right.T`, its strength shared evenly by orthogonal columns.

    Factors are free up to `left A, right A⁻ᵀ`; this choice does not depend on how training split them.
    """
    basis_left, R_left = torch.linalg.qr(left)
    basis_right, R_right = torch.linalg.qr(right)
    U, S, Vh = torch.linalg.svd(R_left @ R_right.mT, full_matrices=False)
    return basis_left @ (U * S.sqrt()), basis_right @ (Vh.mT * S.sqrt())


def _chance(d_model: int, size: int, n_null: int, seed: int) -> Float[np.ndarray, "draw measure"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for start in range(0, n_null, _CHUNK):
        shape = (min(_CHUNK, n_null - start), d_model, 2 * size)
        left, right = torch.randn(shape, generator=generator).split(size, dim=-1)
        drawn.append(measures(spectrum(left, right)))
    return torch.cat(drawn).numpy()


def _rows(
    values: Float[np.ndarray, " measure"], chance: Float[np.ndarray, "draw measure"] | None
) -> Iterator[dict[str, object]]:
    for index, (measure, unit) in enumerate(UNITS.items()):
        drawn = np.full(2, np.nan) if chance is None else chance[:, index]
        yield {
            "measure": measure,
            "value": values[index],
            "null_mean": drawn.mean(),
            "null_std": drawn.std(ddof=1),
            "percentile": stats.percentileofscore(drawn, values[index], kind="mean"),
            "unit": unit,
        }
