"""Where a number flows through a network: from position to position through heads, upwards through the rest.

With λ_n[i] the direction that everything behind level n makes of the question at position i, x_n the stream,

    node(n, i)     = ⟨λ_n[i], x_n[i]⟩                          what passes through a place of the stream
    head(h, i, j)  = A[i, j] ⟨λ_h[i], norm(x)[j] W_V W_O⟩      all paths that h carries from key j to query i
    skip(n, i)     = ⟨λ[i], x_n[i]⟩                            past a sublayer;  mlp(n, i) through it

Nothing is lost: what arrives at a node (skip, heads, MLP, constant) is the node, and so is what leaves it;
every head's edges sum to the total of all paths through it.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Freezing attention patterns";
Ferrando & Voita 2024, "Information Flow Routes", draw such graphs from what each edge writes.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ConfigError
from workbench.paths.directions import Direction
from workbench.paths.maps import FrozenAttention
from workbench.paths.network import FrozenNetwork
from workbench.stream.parts import Part

Progress = Callable[[int, int], None]
PLACES = ("step", "head", "query", "key")


@dataclass(frozen=True, eq=False)
class PathFlow:
    """One number's flow; `nodes[n]` stands before step n, the last one at the end.

    Args:
        steps: each step's name, "attn 0" or "mlp 0"; `reads` is the level that it reads.
        skip: what goes past each step; `mlp` what goes through it, NaN where it is attention.
        constant: what each step adds whatever it reads.
        heads: every head; `through` is the sum of all its edges, listed or not.
        places: of the listed edges: step, head, query, key; the largest first.
        residual: the lowest nodes, all constants and the bias, minus the model's own number.
    """

    label: str
    model_name: str
    str_tokens: tuple[str, ...]
    unit: str
    steps: tuple[str, ...]
    reads: tuple[int, ...]
    nodes: Float[np.ndarray, "level pos"]
    skip: Float[np.ndarray, "step pos"]
    mlp: Float[np.ndarray, "step pos"]
    constant: Float[np.ndarray, "step pos"]
    heads: tuple[Part, ...]
    through: Float[np.ndarray, " head"]
    places: Int[np.ndarray, "edge 4"]
    values: Float[np.ndarray, " edge"]
    n_edges: int
    bias: float
    total: float
    residual: float

    @property
    def left_out(self) -> Float[np.ndarray, " head"]:
        """What each head carries along edges that are not listed."""
        listed = np.zeros(len(self.heads))
        first = {step: index for index, step in reversed(list(enumerate(self._step_of_head())))}
        rows = [first[step] + head for step, head, *_ in self.places.tolist()]
        np.add.at(listed, rows, self.values)
        return self.through - listed

    def table(self) -> pd.DataFrame:
        """Tidy: step kind layer head query key value unit.

        Kinds: what starts at each position (source), edges of heads, then MLPs, constants and skips.
        """
        columns = dict(zip(PLACES, self.places.T, strict=True))
        edges = pd.DataFrame(columns).assign(kind="head", value=self.values)
        start = range(len(self.nodes[0]))
        sources = pd.DataFrame({"query": start, "key": start, "kind": "source"})
        frames = [sources.assign(value=self.nodes[0]), edges]
        for kind in ("mlp", "constant", "skip"):
            step, pos = np.nonzero(np.isfinite(getattr(self, kind)))
            places = {"step": step, "query": pos, "key": pos}
            frames.append(
                pd.DataFrame(places).assign(kind=kind, value=getattr(self, kind)[step, pos])
            )
        table = pd.concat(frames, ignore_index=True).astype(dict.fromkeys(PLACES, "Int64"))
        layers = {step: int(name.split()[1]) for step, name in enumerate(self.steps)}
        table = table.assign(layer=table["step"].map(layers).astype("Int64"), unit=self.unit)
        return table[["step", "kind", "layer", "head", "query", "key", "value", "unit"]]

    def _step_of_head(self) -> list[int]:
        index = {name: step for step, name in enumerate(self.steps)}
        return [index[f"attn {head.layer}"] for head in self.heads]


def path_flow(
    frozen: FrozenNetwork,
    direction: Direction,
    *,
    most: int = 4000,
    progress: Progress | None = None,
) -> PathFlow:
    """A number's flow through layers and positions.

    Args:
        most: how many edges of heads are listed, the largest ones.
        progress: told after every step how many of how many are done.

    Raises:
        ConfigError: a number of edges below 0.
    """
    if most < 0:
        raise ConfigError(f"cannot list {most} edges: give 0 or more")
    frozen = frozen.up_to(direction.n_steps)
    n_steps, levels = len(frozen.steps), frozen.levels
    covector = direction.vector
    nodes = [_along(covector, levels[-1])]
    held: dict[int, Tensor] = {}  # by level: what is read further down
    rows: dict[str, list[Tensor]] = {"skip": [], "mlp": [], "constant": []}
    through: list[Tensor] = []
    edges = _Largest(most)
    for index in reversed(range(n_steps)):
        step = frozen.steps[index]
        rows["constant"].append(_along(covector, step.constant))
        if step.norm is not None:
            covector = step.norm.transpose(covector)
        rows["skip"].append(_along(covector, levels[index]))
        if isinstance(step.sublayer, FrozenAttention):
            values = carried(step.sublayer, covector, levels[step.reads])
            through.append(values.double().sum((1, 2)))
            edges.add(index, values)
            rows["mlp"].append(torch.full_like(rows["skip"][-1], torch.nan))
        else:
            rows["mlp"].append(_along(covector, frozen.written[index][0]))
        held[step.reads] = held.get(step.reads, 0) + step.sublayer.transpose(covector)
        covector = covector + held.pop(index, 0)
        nodes.append(_along(covector, levels[index]))
        if progress is not None:
            progress(n_steps - index, n_steps)
    return _collected(frozen, direction, nodes, rows, through, edges)


def carried(
    attention: FrozenAttention,
    direction: Float[Tensor, "pos d_model"],
    x: Float[Tensor, "pos d_model"],
) -> Float[Tensor, "head query key"]:
    """What each head carries from each key to each query, along a direction behind it."""
    x = x if attention.reads is None else attention.reads.apply(x)
    v = einsum(x, attention.W_V, "key d_model, kv_head d_model d_head -> kv_head key d_head")
    v = v.repeat_interleave(len(attention.W_O) // len(v), dim=0)
    direction = direction if attention.after is None else attention.after.transpose(direction)
    read = einsum(
        direction, attention.W_O, "query d_model, head d_head d_model -> head query d_head"
    )
    return attention.pattern * (read @ v.mT)


class _Largest:
    """The edges of the largest size among all that were added."""

    def __init__(self, most: int) -> None:
        self.most, self.n_edges = most, 0
        self.places, self.values = torch.zeros(0, 4, dtype=torch.long), torch.zeros(0)

    def add(self, step: int, values: Float[Tensor, "head query key"]) -> None:
        flat = values.flatten()
        self.n_edges += int((flat != 0).sum())
        kept = flat.abs().topk(min(self.most, len(flat))).indices
        kept = kept[flat[kept] != 0]
        _, n_query, n_key = values.shape
        found = torch.stack(
            [kept // (n_query * n_key), kept // n_key % n_query, kept % n_key], dim=-1
        )
        places = torch.cat([torch.full_like(found[:, :1], step), found], -1).cpu()
        self.places = torch.cat([self.places, places])
        self.values = torch.cat([self.values.to(flat.dtype), flat[kept].cpu()])
        order = self.values.abs().argsort(descending=True, stable=True)[: self.most]
        self.places, self.values = self.places[order], self.values[order]


def _along(direction: Float[Tensor, "pos d_model"], x: Float[Tensor, "pos d_model"]) -> Tensor:
    return (direction * x).sum(-1).double()


def _collected(
    frozen: FrozenNetwork,
    direction: Direction,
    nodes: list[Tensor],
    rows: dict[str, list[Tensor]],
    through: list[Tensor],
    edges: _Largest,
) -> PathFlow:
    def upwards(found: list[Tensor]) -> np.ndarray:
        none = torch.zeros(0, len(frozen.stream), dtype=torch.float64)
        return (torch.stack(found[::-1]) if found else none).cpu().numpy()

    attention = [step for step in frozen.steps if step.kind == "attn"]
    tables = {name: upwards(found) for name, found in rows.items()}
    start = upwards(nodes)
    whole = torch.cat(through[::-1]).cpu().numpy() if through else np.zeros(0)
    summed = float(start[0].sum() + tables["constant"].sum())
    return PathFlow(
        label=direction.label,
        model_name=frozen.model.name,
        str_tokens=frozen.str_tokens,
        unit=direction.unit,
        steps=tuple(f"{step.kind} {step.sublayer.layer}" for step in frozen.steps),
        reads=tuple(step.reads for step in frozen.steps),
        nodes=start,
        **tables,
        heads=tuple(part for step in attention for part in step.components),
        through=whole,
        places=edges.places.numpy(),
        values=edges.values.double().numpy(),
        n_edges=edges.n_edges,
        bias=direction.bias,
        total=direction.total,
        residual=summed + direction.bias - direction.total,
    )
