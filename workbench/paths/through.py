"""Totals through a component, along an edge, from a source token: exact, because the frozen network is linear.

With λ_c the direction that everything behind component c makes of the question, and out_c what c writes here,

    through(c)   = ⟨λ_c, out_c⟩                 all paths that pass through c
    edge(c → d)  = ⟨F_d.T λ_d, out_c⟩           those that go from c to d without a component between
    source(s)    = ⟨λ_0, s⟩                     all that start in s, token by token

One pass back through the network gives every λ. Sums: all sources together are the number asked for; all edges
that leave a component are what goes through it; all that enter one, sources and constants included, are too.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.paths.directions import Direction
from workbench.paths.network import FrozenNetwork
from workbench.stream.parts import Part, as_numpy

OUT = Part("out", "out")


@dataclass(frozen=True, eq=False)
class Through:
    """Exact totals of one number.

    Args:
        components: from the first layer up; `through` is each one's total.
        sources: embeddings and constants; `from_source` is each one's total.
        by_token: the embeddings' totals by position.
        edges: `[writer reader]` over `writers` (sources, then components) and `readers` (components, then out).
        residual: all sources and the bias, minus the model's own number.
    """

    label: str
    model_name: str
    str_tokens: tuple[str, ...]
    components: tuple[Part, ...]
    through: Float[np.ndarray, " component"]
    sources: tuple[Part, ...]
    from_source: Float[np.ndarray, " source"]
    by_token: Float[np.ndarray, " pos"]
    edges: Float[np.ndarray, "writer reader"]
    unit: str
    bias: float
    total: float
    residual: float

    @property
    def writers(self) -> tuple[Part, ...]:
        """The rows of `edges`."""
        return (*self.sources, *self.components)

    @property
    def readers(self) -> tuple[Part, ...]:
        """The columns of `edges`."""
        return (*self.components, OUT)

    def table(self) -> pd.DataFrame:
        """Tidy: part kind layer head value unit; totals through components, and from sources."""
        parts = (*self.sources, *self.components)
        values = np.concatenate([self.from_source, self.through])
        return pd.DataFrame(
            {
                "part": [part.label for part in parts],
                "kind": [part.kind for part in parts],
                "layer": pd.array([part.layer for part in parts], dtype="Int64"),
                "head": pd.array([part.head for part in parts], dtype="Int64"),
                "value": values,
                "unit": self.unit,
            }
        )

    def edge_table(self) -> pd.DataFrame:
        """Tidy: writer reader value unit; edges that cannot be are left out."""
        rows, columns = np.nonzero(np.isfinite(self.edges))
        return pd.DataFrame(
            {
                "writer": [self.writers[row].label for row in rows],
                "reader": [self.readers[column].label for column in columns],
                "value": self.edges[rows, columns],
                "unit": self.unit,
            }
        )


def paths_through(frozen: FrozenNetwork, direction: Direction) -> Through:
    """Every component's, edge's and source's exact share of a number."""
    frozen = frozen.up_to(direction.n_steps)
    writers: list[Part] = []  # from the last step down
    columns: list[Float[Tensor, " reader"]] = []
    through: dict[Part, float] = {}
    # Directions in the order of `readers`: the first `n_seen` at the level where the pass back has arrived, the
    # others further down.
    readers = [OUT]
    stack = direction.vector.new_zeros(len(frozen.components) + 1, *direction.vector.shape)
    stack[0], n_seen = direction.vector, 1
    for index in reversed(range(len(frozen.steps))):
        step, seen = frozen.steps[index], stack[:n_seen]
        writers.append(step.bias)
        columns += _with(seen, step.constant[None])
        if step.norm is not None:
            seen[:] = step.norm.transpose(seen)
        whole, written = seen.sum(0), frozen.written[index]
        writers += step.components
        columns += _with(seen, written)
        totals = _with(whole[None], written)[:, 0]
        through |= zip(step.components, totals.tolist(), strict=True)
        stack[len(readers) :][: len(written)] = step.sublayer.transposed_parts(whole)
        readers += step.components
        if index == step.reads:
            n_seen = len(readers)
    for part, vector in reversed(list(frozen.sources.items())):
        writers.append(part)
        columns += _with(stack, vector[None])
    edges = _edges(frozen, writers, readers, columns)
    return _collected(frozen, direction, edges, through, stack.sum(0))


def _with(
    stack: Float[Tensor, "reader pos d_model"], written: Float[Tensor, "writer pos d_model"]
) -> Float[Tensor, "writer reader"]:
    return (written.flatten(1) @ stack.flatten(1).mT).double()


def _edges(
    frozen: FrozenNetwork,
    writers: list[Part],
    readers: list[Part],
    columns: list[Tensor],
) -> Float[np.ndarray, "writer reader"]:
    """The matrix from what was found on the way back, NaN where a reader does not come after a writer."""
    parts = (*frozen.sources, *frozen.constants, *frozen.components)
    rows = {part: row for row, part in enumerate(parts)}
    places = {part: place for place, part in enumerate((*frozen.components, OUT))}
    edges = np.full((len(rows), len(places)), np.nan)
    for part, column in zip(writers, columns, strict=True):
        edges[rows[part], [places[reader] for reader in readers[: len(column)]]] = as_numpy(column)
    return edges


def _collected(
    frozen: FrozenNetwork,
    direction: Direction,
    edges: Float[np.ndarray, "writer reader"],
    through: dict[Part, float],
    start: Float[Tensor, "pos d_model"],
) -> Through:
    components = frozen.components
    sources = (*frozen.sources, *frozen.constants)
    from_source = np.nansum(edges[: len(sources)], axis=1)
    by_token = torch.stack([(start * vector).sum(-1) for vector in frozen.sources.values()]).sum(0)
    return Through(
        label=direction.label,
        model_name=frozen.model.name,
        str_tokens=frozen.str_tokens,
        components=components,
        through=np.array([through[part] for part in components]),
        sources=sources,
        from_source=from_source,
        by_token=as_numpy(by_token.double()),
        edges=edges,
        unit=direction.unit,
        bias=direction.bias,
        total=direction.total,
        residual=float(from_source.sum()) + direction.bias - direction.total,
    )
