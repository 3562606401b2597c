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
from einops import einsum
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
    # Directions read so far, at the level of the stream where the pass back has arrived: out, then components.
    readers: list[Part] = [OUT]
    stack = direction.vector[None]
    held: dict[int, tuple[tuple[Part, ...], Tensor]] = {}  # by level: what is read further down
    columns: list[Float[Tensor, " reader"]] = []
    through: dict[Part, float] = {}
    for index in reversed(range(len(frozen.steps))):
        step = frozen.steps[index]
        writers.append(step.bias)
        columns.append(_with(stack, step.constant))
        if step.norm is not None:
            stack = step.norm.transpose(stack)
        whole = stack.sum(0)
        for part, out in zip(step.components, frozen.written[index], strict=True):
            writers.append(part)
            columns.append(_with(stack, out))
            through[part] = float((whole * out).sum())
        parts, read = held.pop(step.reads, ((), stack[:0]))
        read = torch.cat([read, step.sublayer.transposed_parts(whole)])
        held[step.reads] = ((*parts, *step.components), read)
        if index in held:
            parts, read = held.pop(index)
            readers += parts
            stack = torch.cat([stack, read])
    for part, vector in reversed(list(frozen.sources.items())):
        writers.append(part)
        columns.append(_with(stack, vector))
    edges = _edges(frozen, writers, readers, columns)
    return _collected(frozen, direction, edges, through, stack.sum(0))


def _with(stack: Float[Tensor, "reader pos d_model"], x: Float[Tensor, "pos d_model"]) -> Tensor:
    return einsum(stack, x, "reader pos d_model, pos d_model -> reader").double()


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
