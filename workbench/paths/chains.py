"""Virtual heads on a prompt: chains of heads that act as one, and what each adds to a number.

Heads h1 < h2 of different layers, with nothing but the stream between, act as one head with pattern
`A[h2] @ A[h1]` and circuit `W_OV[h1] @ W_OV[h2]`. What the chain adds is one path for every source,

    chain(h1, h2) = ⟨F_h2.T u, F_h1 embeddings⟩        u the direction asked for, F the frozen maps

so with the reading directions of all later heads, and what all earlier ones write of the sources alone, all
chains are one product of matrices. Embeddings and constants (biases that enter before h1) are kept apart.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Virtual Attention Heads".)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ConfigError
from workbench.paths.directions import Direction
from workbench.paths.feeds import Place, one_part
from workbench.paths.maps import FrozenAttention
from workbench.paths.network import FrozenNetwork
from workbench.sites import Head
from workbench.stream.parts import Part, as_numpy

Progress = Callable[[int, int], None]
Chain = tuple[Place, ...]
LONGEST = 3


@dataclass(frozen=True, eq=False)
class HeadChains:
    """The chains of one length that add the most to a number.

    Args:
        chains: first head to last, the largest by size first; `n_chains` is how many there are.
        values: what each adds by carrying the embeddings.
        by_token: the same by the position where the chain starts.
        constants: what each adds by carrying the constants of earlier layers.
        whole: all chains together, listed or not, embeddings and constants.
        residual: `whole` minus the same sum made layer by layer, without taking chains apart.
    """

    label: str
    model_name: str
    str_tokens: tuple[str, ...]
    unit: str
    length: int
    chains: tuple[tuple[Part, ...], ...]
    values: Float[np.ndarray, " chain"]
    by_token: Float[np.ndarray, "chain pos"]
    constants: Float[np.ndarray, " chain"]
    n_chains: int
    whole: float
    residual: float

    def table(self) -> pd.DataFrame:
        """Tidy: chain value constant unit."""
        return pd.DataFrame(
            {
                "chain": [" → ".join(part.label for part in chain) for chain in self.chains],
                "value": self.values,
                "constant": self.constants,
                "unit": self.unit,
            }
        )


def chain_pattern(
    frozen: FrozenNetwork, heads: Sequence[Head | Part]
) -> Float[Tensor, "query key"]:
    """Where a chain of heads looks: `A[last] @ … @ A[first]`; rows sum to 1, as those of one head do.

    Args:
        heads: first to last, each in a later layer than the one before.

    Raises:
        ConfigError: no heads, one that the model does not have, or layers that do not rise.
    """
    patterns = [
        frozen.run.pattern(frozen.steps[step].sublayer.layer)[0, place]
        for step, place in _places(frozen, heads)
    ]
    return reduce(lambda first, later: later @ first, patterns)


def head_chains(
    frozen: FrozenNetwork,
    direction: Direction,
    *,
    length: int = 2,
    k: int = 20,
    progress: Progress | None = None,
) -> HeadChains:
    """The k chains of heads that add the most, all being scored.

    Args:
        length: heads in a chain: 1 is each head on the sources alone.
        progress: told after every last head how many of how many are done.

    Raises:
        ConfigError: another length than 1 to 3, or k below 1.
    """
    if length not in range(1, LONGEST + 1) or k < 1:
        raise ConfigError(
            f"no {k!r:.20} chains of {length!r:.20} heads: lengths are 1 to {LONGEST}, k at least 1"
        )
    frozen = frozen.up_to(direction.n_steps)
    end = _Ends(((),), direction.vector[None], np.array([len(frozen.steps)]))
    lasts = end.singly() if length < LONGEST else _reading(frozen, end).singly()
    written, scored = dict(_of_sources(frozen)), _Scored(k)
    for done, last in enumerate(lasts, start=1):
        ends = last if length == 1 else _reading(frozen, last)
        scored.add(_scores(frozen, written, ends), ends.chains)
        if progress is not None:
            progress(done, len(lasts))
    covectors = [_at_start(frozen, direction.vector, chain) for chain in scored.chains]
    by_token = [as_numpy((x * frozen.levels[0]).sum(-1).double()) for x in covectors]
    return HeadChains(
        label=direction.label,
        model_name=frozen.model.name,
        str_tokens=frozen.str_tokens,
        unit=direction.unit,
        length=length,
        chains=tuple(tuple(_part(frozen, place) for place in chain) for chain in scored.chains),
        values=scored.values[0],
        by_token=np.stack(by_token) if by_token else np.zeros((0, len(frozen.stream))),
        constants=scored.values[1],
        n_chains=scored.n_chains,
        whole=scored.whole,
        residual=scored.whole - _layer_by_layer(frozen, direction.vector, length),
    )


@dataclass(frozen=True, eq=False)
class _Ends:
    """What is next to the end of chains, with its covector and the level that it reads, highest first."""

    chains: tuple[Chain, ...]
    stack: Float[Tensor, "end pos d_model"]
    levels: Int[np.ndarray, " end"]

    def singly(self) -> list["_Ends"]:
        """Each by itself."""
        rows = [slice(row, row + 1) for row in range(len(self.chains))]
        return [_Ends(self.chains[row], self.stack[row], self.levels[row]) for row in rows]


def _reading(frozen: FrozenNetwork, end: _Ends) -> _Ends:
    """All heads that feed one end."""
    (chain,), level = end.chains, int(end.levels[0])
    chains: list[Chain] = []
    stack, levels = [end.stack[:0]], []
    for index, direction in frozen.skipped(end.stack[0], level):
        step = frozen.steps[index]
        if isinstance(step.sublayer, FrozenAttention):
            stack.append(step.sublayer.transposed_parts(direction))
            chains += [((index, place), *chain) for place in range(step.sublayer.n_parts)]
            levels += [step.reads] * step.sublayer.n_parts
    return _Ends(tuple(chains), torch.cat(stack), np.array(levels, dtype=int))


def _of_sources(frozen: FrozenNetwork) -> Iterator[tuple[int, Tensor]]:
    """What the heads of each step write if they read the embeddings alone, and the constants alone."""
    start = frozen.levels[0]
    levels = [torch.stack([start, torch.zeros_like(start)])]
    for index, step in enumerate(frozen.steps):
        if isinstance(step.sublayer, FrozenAttention):
            yield index, torch.stack([step.sublayer.parts(x) for x in levels[step.reads]])
        embeddings, constants = levels[-1] if step.norm is None else step.norm.apply(levels[-1])
        levels.append(torch.stack([embeddings, constants + step.constant]))


def _scores(
    frozen: FrozenNetwork, written: dict[int, Tensor], ends: _Ends
) -> dict[int, Float[np.ndarray, "kind head end"]]:
    """By step, what its heads add through each end that they feed: carrying embeddings, and constants."""
    found, stack = {}, ends.stack.clone()
    for index in reversed(range(len(frozen.steps))):
        seen = stack[: int((ends.levels > index).sum())]
        norm = frozen.steps[index].norm
        if norm is not None:
            seen[:] = norm.transpose(seen)
        if index in written and len(seen):
            values = written[index].flatten(2) @ seen.flatten(1).mT
            found[index] = as_numpy(values.double())
    return found


class _Scored:
    """The largest chains so far, with the number and the sum of all."""

    def __init__(self, k: int) -> None:
        self.k, self.n_chains, self.whole = k, 0, 0.0
        self.chains: list[Chain] = []
        self.values = np.zeros((2, 0))

    def add(
        self, scores: dict[int, Float[np.ndarray, "kind head end"]], ends: tuple[Chain, ...]
    ) -> None:
        """Count all of these, and keep those that are among the largest."""
        for step, values in scores.items():
            flat = values.reshape(2, -1)
            self.n_chains += flat.shape[1]
            self.whole += float(flat.sum())
            least = abs(self.values[0, -1]) if len(self.chains) == self.k else -1.0
            kept = np.flatnonzero(np.abs(flat[0]) > least)
            kept = kept[np.argsort(-np.abs(flat[0, kept]), kind="stable")[: self.k]]
            places = zip(*np.divmod(kept, values.shape[2]), strict=True)
            new = [((step, int(head)), *ends[end]) for head, end in places]
            both = np.concatenate([self.values, flat[:, kept]], axis=1)
            order = np.argsort(-np.abs(both[0]), kind="stable")[: self.k]
            chains = [*self.chains, *new]
            self.chains, self.values = [chains[row] for row in order], both[:, order]


def _at_start(
    frozen: FrozenNetwork, direction: Float[Tensor, "pos d_model"], chain: Chain
) -> Float[Tensor, "pos d_model"]:
    """What a chain, and nothing beside it, makes of a direction at the end."""
    level = len(frozen.steps)
    for step, place in reversed(chain):
        seen = frozen.skipped(direction, level)
        direction = next(passed for index, passed in seen if index == step)
        direction = one_part(frozen.steps[step].sublayer, place).transpose(direction)
        level = frozen.steps[step].reads
    return [direction, *(passed for _, passed in frozen.skipped(direction, level))][-1]


def _layer_by_layer(
    frozen: FrozenNetwork, direction: Float[Tensor, "pos d_model"], length: int
) -> float:
    """All paths of so many attention layers and no MLP: Λ[n + 1] ← Λ[n + 1] + F.T Λ[n]."""
    lambdas = direction.new_zeros(length + 1, *direction.shape)
    lambdas[0] = direction
    total = 0.0
    for step in reversed(frozen.steps):
        total += float((lambdas[length].double() * step.constant.double()).sum())
        if step.norm is not None:
            lambdas = step.norm.transpose(lambdas)
        if isinstance(step.sublayer, FrozenAttention):
            lambdas[1:] += step.sublayer.transpose(lambdas[:-1])
    return total + float((lambdas[length].double() * frozen.levels[0].double()).sum())


def _places(frozen: FrozenNetwork, heads: Sequence[Head | Part]) -> Chain:
    """Checked: heads of the network in rising layers."""
    known = {(part.layer, part.head): part for part in frozen.components if part.kind == "head"}
    labels = [str(head) if isinstance(head, Head) else head.label for head in heads]
    chain: list[Place] = []
    for label, head in zip(labels, heads, strict=True):
        if (head.layer, head.head) not in known:
            frozen.place(Part(label[:40], "head"))
        chain.append(frozen.place(known[head.layer, head.head]))
    if not chain or any(a[0] >= b[0] for a, b in pairwise(chain)):
        raise ConfigError(
            f"no chain {' → '.join(labels)[:80]!r}: give heads first to last, each in a later layer"
        )
    return tuple(chain)


def _part(frozen: FrozenNetwork, place: Place) -> Part:
    return frozen.steps[place[0]].components[place[1]]
