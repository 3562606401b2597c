"""Clusterability: how much of a matrix stays inside clusters of units.

    C = Σ_c Σ_{i ∈ U_c, j ∈ V_c} W_ij² / Σ_ij W_ij²;        value = mean over matrices of 1 − C

(Golechha et al. 2024, "Modular Training of Neural Networks aids Interpretability", who add −λC with λ = 40
on the matrices into the MLPs; the same gradient.) Scale: 0 = no weight crosses, 1 − 1/k = by chance with k
equal clusters. Invariances: the scale of a matrix, so it never asks for small weights, and permutations
inside a cluster. Clusters are contiguous equal blocks unless they are given; `spectral_clusters` finds them
(bipartite: Dhillon 2001).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.vq import ClusterError, kmeans2
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.regularizers.group_lasso import fitting
from workbench.training.regularizers.strength import Regularizer
from workbench.training.wires import Network, wires

_STARTS = 10
Labels = tuple[Int[Tensor, " source"], Int[Tensor, " target"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusterability(Regularizer):
    """The share of squared weight that crosses between clusters, as a penalty.

    Args:
        clusters: k, where blocks are cut evenly.
        names: names or patterns of the wires that are judged.
        labels: by name of the wires, the cluster of each source and of each target.
    """

    clusters: int = 4
    names: tuple[str, ...] = ("blocks.*.mlp.W_in", "layers.*.W")
    labels: Mapping[str, Labels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 1:
            raise ConfigError(f"clusters must be a whole number from 1 up, not {self.clusters}")

    def value(self, model: Network, step: int = 0) -> Tensor:
        """1 − C, averaged over the matrices.

        Raises:
            ConfigError: no wires of these names, or labels for another number of units.
        """
        blocks = {block.name: block.weight for block in wires(model)}
        chosen = fitting({name: len(w) for name, w in blocks.items()}, self.names, model.name)
        shares = [share_inside(blocks[name], *self._labels(name, blocks[name])) for name in chosen]
        return 1 - torch.stack(shares).mean()

    def _labels(self, name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
        n_source, n_target = weight.shape
        source, target = self.labels.get(
            name, (even_blocks(n_source, self.clusters), even_blocks(n_target, self.clusters))
        )
        if (len(source), len(target)) != (n_source, n_target):
            raise ConfigError(
                f"{name} joins {n_source} and {n_target} units; "
                f"there are labels for {len(source)} and {len(target)}"
            )
        return source.to(weight.device), target.to(weight.device)


def share_inside(
    weight: Float[Tensor, "source target"],
    source: Int[Tensor, " source"],
    target: Int[Tensor, " target"],
) -> Float[Tensor, ""]:
    """C: the share of squared weight between units of one label; 1 = nothing crosses."""
    squares = weight.pow(2)
    inside = squares * (source[:, None] == target[None])
    return inside.sum() / squares.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def even_blocks(n: int, clusters: int) -> Int[Tensor, " unit"]:
    """Labels of contiguous blocks, as equal as they can be."""
    return torch.arange(n) * clusters // n


def spectral_clusters(
    weight: Float[Tensor, "source target"], clusters: int, *, seed: int = 0
) -> Labels:
    """Bipartite spectral clusters: k-means on the rows of the leading singular vectors of D_U^-½ |W| D_V^-½.

    Raises:
        ConfigError: more clusters than units on one side, or than the wires fall into.
    """
    if not 1 <= clusters <= min(weight.shape):
        most = min(weight.shape)
        raise ConfigError(f"clusters must be a whole number from 1 to {most}, not {clusters}")
    size = weight.detach().abs().double().cpu()
    left, right = (torch.where(size.sum(d) > 0, size.sum(d).rsqrt(), 0.0) for d in (1, 0))
    u, _, vt = torch.linalg.svd(left[:, None] * size * right, full_matrices=False)
    rows = torch.nn.functional.normalize(torch.cat([u[:, :clusters], vt[:clusters].T]), dim=1)
    found = _k_means(rows, clusters, seed)
    return found[: len(size)], found[len(size) :]


def _k_means(rows: Float[Tensor, "unit axis"], clusters: int, seed: int) -> Int[Tensor, " unit"]:
    """The tightest of several starts, each of which may end with an empty cluster and then does not count."""
    best: tuple[float, np.ndarray] | None = None
    for start in range(_STARTS):
        rng = np.random.default_rng((seed, start))
        try:
            centres, labels = kmeans2(
                rows.numpy(), clusters, minit="++", missing="raise", rng=rng, iter=50
            )
        except ClusterError:
            continue
        spread = float(((rows.numpy() - centres[labels]) ** 2).sum())
        if best is None or spread < best[0]:
            best = spread, labels
    if best is None:
        raise ConfigError(f"these wires do not fall into {clusters} clusters: ask for fewer")
    return torch.from_numpy(best[1].astype(np.int64))
