"""How modular a graph is: Newman's Q and the normalised cut, of a given and of the best partition found.

    Q    = 1/2m · Σ_ij (A_ij − k_i k_j / 2m) [c_i = c_j]          high = modular; Newman 2006
         = Σ_c (inside_c / 2m − (vol_c / 2m)²)                    without the dense matrix
    ncut = Σ_c cut_c / vol_c          0 = nothing between clusters, at most k; low = modular

with vol_c the degrees of a module's units, inside_c the weight between them, cut_c = vol_c − inside_c. Q is
searched by Leiden's algorithm (Traag, Waltman, van Eck 2019), ncut by spectral clustering as in Filan et al.
2021, "Clusterability in Neural Networks". Both searches are heuristics: Q found is a lower bound, ncut found
an upper bound, and a null must be searched as hard.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from graspologic_native import leiden
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh

from workbench.errors import ConfigError
from workbench.training.modularity.graph import UnitGraph

LARGEST_DENSE = 300
"""Units up to which all of a matrix is decomposed; Lanczos iterations beyond."""
_STARTS, _ROUNDS = 10, 15
_LEIDEN_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Partition:
    """Which module each unit is in, and the score that was sought."""

    labels: Int[np.ndarray, " unit"]
    value: float

    @property
    def n_modules(self) -> int:
        """Number of different modules."""
        return len(np.unique(self.labels))


def newman_q(graph: UnitGraph, labels: Int[np.ndarray, " unit"]) -> float:
    """Newman's Q of a partition: the share of weight inside modules beyond what degrees would give; < 1.

    Raises:
        ConfigError: labels of another number of units.
    """
    inside, volume = _inside(graph, labels)
    total = volume.sum()
    return float((inside / total - (volume / total) ** 2).sum())


def normalised_cut(graph: UnitGraph, labels: Int[np.ndarray, " unit"]) -> float:
    """Σ cut/vol over the clusters: 0 = they are separate; k − 1 is what random clusters of k come to.

    Raises:
        ConfigError: labels of another number of units.
    """
    inside, volume = _inside(graph, labels)
    return float((1 - inside / volume).sum())


def best_q(graph: UnitGraph, *, trials: int, seed: int) -> Partition:
    """The partition of highest Q among `trials` runs of Leiden's algorithm."""
    upper = sp.coo_array(sp.triu(graph.weight))
    # The search's randomness is measured in weights: they get the same scale whatever the network's is.
    sizes = upper.data / upper.data.mean()
    names = [str(unit) for unit in range(len(graph.units))]
    edges = [
        (names[i], names[j], size)
        for i, j, size in zip(upper.row.tolist(), upper.col.tolist(), sizes.tolist(), strict=True)
    ]
    _, found = leiden(edges=edges, seed=seed, iterations=_LEIDEN_ROUNDS, trials=trials)
    labels = np.array([found[name] for name in names])
    return Partition(labels, newman_q(graph, labels))


def best_cut(graph: UnitGraph, k: int, *, seed: int) -> Partition:
    """The k clusters of lowest normalised cut among ten k-means of the spectral embedding.

    Raises:
        ConfigError: fewer units than clusters.
    """
    n_units = len(graph.units)
    if not 2 <= k <= n_units:
        raise ConfigError(f"{n_units} wired units make 2 to {n_units} clusters, not {k}")
    n_components, component = connected_components(graph.weight, directed=False)
    if n_components >= k:
        labels = _packed(graph, component, k)
        return Partition(labels, normalised_cut(graph, labels))
    points = _embedding(graph, component, k)
    found = _clustered(points, k, np.random.default_rng(seed))
    labels = found[int(np.argmin(_cuts(graph, found, k)))]
    return Partition(labels, normalised_cut(graph, labels))


def _inside(
    graph: UnitGraph, labels: Int[np.ndarray, " unit"]
) -> tuple[Float[np.ndarray, " module"], Float[np.ndarray, " module"]]:
    if len(labels) != len(graph.units):
        raise ConfigError(f"{len(labels)} labels for the {len(graph.units)} units of the graph")
    _, modules = np.unique(labels, return_inverse=True)
    edges = sp.coo_array(graph.weight)
    same = modules[edges.row] == modules[edges.col]
    n_modules = int(modules.max()) + 1
    inside = np.bincount(modules[edges.row], edges.data * same, minlength=n_modules)
    return inside, np.bincount(modules, graph.degree, minlength=n_modules)


def _packed(
    graph: UnitGraph, component: Int[np.ndarray, " unit"], k: int
) -> Int[np.ndarray, " unit"]:
    """Whole components dealt into k clusters, each to the smallest so far: nothing is cut."""
    volume = np.bincount(component, graph.degree)
    filled, cluster = np.zeros(k), np.zeros(len(volume), dtype=np.int64)
    for index in np.argsort(-volume, kind="stable"):
        cluster[index] = filled.argmin()
        filled[cluster[index]] += volume[index]
    return cluster[component]


def _embedding(
    graph: UnitGraph, component: Int[np.ndarray, " unit"], k: int
) -> Float[np.ndarray, "unit k"]:
    """The k slowest modes of a random walk on the graph; those that only name a component come first."""
    root = np.sqrt(graph.degree)
    scaled = sp.diags_array(1 / root) @ graph.weight @ sp.diags_array(1 / root)
    named = root[:, None] * (component[:, None] == np.arange(component.max() + 1))
    named /= np.linalg.norm(named, axis=0)
    wanted, n_units = k - named.shape[1], len(root)
    if n_units <= LARGEST_DENSE or wanted > n_units // 4:
        # The known modes are sent to the other end of the spectrum, so that each is found once.
        dense = scaled.toarray() - 2 * named @ named.T
        found = scipy.linalg.eigh(dense, subset_by_index=[n_units - wanted, n_units - 1])[1]
    else:
        known = LinearOperator(
            scaled.shape,
            matvec=lambda x: scaled @ x - 2 * (named @ (named.T @ x)),
            dtype=np.float64,
        )
        start = np.random.default_rng(0).standard_normal(n_units)
        found = eigsh(known, k=wanted, which="LA", v0=start, tol=1e-6, ncv=max(40, 3 * wanted))[1]
    return np.hstack([named, found]) / root[:, None]


def _clustered(
    points: Float[np.ndarray, "unit k"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, "start unit"]:
    """k-means (Lloyd) from ten k-means++ starts, all at once: the null asks for thousands of small ones."""
    centres = _seeds(points, k, rng)
    labels = started = _nearest(points, centres)
    for _ in range(_ROUNDS):
        held = (labels[..., None] == np.arange(k)).astype(np.float64)
        n_held = held.sum(axis=1)[..., None]
        means = np.einsum("sik,id->skd", held, points) / np.maximum(n_held, 1)
        centres = np.where(n_held > 0, means, centres)
        labels = _nearest(points, centres)
    n_held = (labels[..., None] == np.arange(k)).any(axis=1)
    # Where a cluster lost its last unit on the way, the starting points themselves keep one each: the embedding
    # has rank k, so at least k of its rows differ.
    return np.where(n_held.all(axis=1)[:, None], labels, started)


def _seeds(
    points: Float[np.ndarray, "unit k"], k: int, rng: np.random.Generator
) -> Float[np.ndarray, "start k k"]:
    """Starting points of which each next is likelier the farther it is from those before (k-means++)."""
    chosen = points[rng.integers(0, len(points), _STARTS)][:, None]
    while chosen.shape[1] < k:
        near = _squares(points, chosen).min(axis=2)
        ends = near.cumsum(axis=1)
        drawn = rng.random((_STARTS, 1)) * ends[:, -1:]
        index = (ends <= drawn).sum(axis=1).clip(max=len(points) - 1)
        chosen = np.concatenate([chosen, points[index][:, None]], axis=1)
    return chosen


def _squares(
    points: Float[np.ndarray, "unit d"], centres: Float[np.ndarray, "start c d"]
) -> Float[np.ndarray, "start unit c"]:
    return ((points[None, :, None] - centres[:, None]) ** 2).sum(axis=-1)


def _nearest(
    points: Float[np.ndarray, "unit d"], centres: Float[np.ndarray, "start c d"]
) -> Int[np.ndarray, "start unit"]:
    return _squares(points, centres).argmin(axis=-1)


def _cuts(
    graph: UnitGraph, labels: Int[np.ndarray, "start unit"], k: int
) -> Float[np.ndarray, " start"]:
    """The normalised cut of several partitions."""
    held = (labels.T[..., None] == np.arange(k)).astype(np.float64)
    flat = held.reshape(len(held), -1)
    inside = (flat * (graph.weight @ flat)).sum(axis=0)
    return (1 - inside / (graph.degree @ flat)).reshape(-1, k).sum(axis=1)
