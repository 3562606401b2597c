"""The order spectrum: how much of a logit has passed through exactly n components, for every n, exactly.

A path is a source followed by components in rising order. A 30-layer model with 9 heads and MLPs has 20³⁰ of
them for every source, but all paths of one length are one sum, made layer by layer. Seen from the logit, with
Λ[n] the direction that n components of the later layers have made of it,

    Λ[n + 1] ← Λ[n + 1] + F.T Λ[n]        for every layer F, the heads of a layer acting side by side

and order n of a source is ⟨Λ[n], source⟩ where the source enters. The sum over n is the logit. Terms may be far
larger than their sum: `cancellation` says how much.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Path Expansion Trick"; Veit et al.
2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", §3.)
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError
from workbench.paths.directions import Direction
from workbench.paths.network import FrozenNetwork, Step
from workbench.stream.parts import Part

Progress = Callable[[int, int], None]
KINDS = {"all": ("attn", "mlp"), "heads": ("attn",), "mlps": ("mlp",)}


@dataclass(frozen=True, eq=False)
class OrderSpectrum:
    """What paths of each order add to a number.

    Args:
        values: by order and source, summed over positions; sources are embeddings and constants.
        by_token: by order and position, the embeddings alone.
        bias: what is added whatever the stream is.
        total: the model's own number; `residual` is the sum of everything minus it.
    """

    label: str
    model_name: str
    str_tokens: tuple[str, ...]
    sources: tuple[Part, ...]
    values: Float[np.ndarray, "order source"]
    by_token: Float[np.ndarray, "order pos"]
    unit: str
    bias: float
    total: float
    residual: float

    @property
    def orders(self) -> Float[np.ndarray, " order"]:
        """The sum of all paths of each order."""
        return self.values.sum(1)

    @property
    def cancellation(self) -> float:
        """Sum of the sizes of the orders over the size of their sum: 1 if nothing cancels."""
        whole = abs(float(self.orders.sum()))
        return float(np.abs(self.orders).sum()) / whole if whole else float("inf")

    def table(self) -> pd.DataFrame:
        """Tidy: order source kind layer value cumulative unit."""
        order, source = (axis.ravel() for axis in np.indices(self.values.shape))
        parts = [self.sources[index] for index in source]
        return pd.DataFrame(
            {
                "order": order,
                "source": [part.label for part in parts],
                "kind": [part.kind for part in parts],
                "layer": pd.array([part.layer for part in parts], dtype="Int64"),
                "value": self.values.ravel(),
                "unit": self.unit,
            }
        )


def order_spectrum(
    frozen: FrozenNetwork,
    direction: Direction,
    *,
    counted: str | Collection[Part] = "all",
    progress: Progress | None = None,
) -> OrderSpectrum:
    """Every order's exact contribution to a number.

    Args:
        counted: which components add to a path's order: "all", "heads", "mlps", or chosen components. The
            others act, but are not counted.
        progress: told after every layer how many of how many are done.

    Raises:
        ConfigError: another word for `counted`, or components that the model does not have.
    """
    frozen = frozen.up_to(direction.n_steps)
    chosen = counted_parts(frozen, counted)
    n_counted = sum(any(part in chosen for part in step.components) for step in frozen.steps)
    lambdas = direction.vector.new_zeros(n_counted + 1, *direction.vector.shape)
    lambdas[0], n_orders = direction.vector, 1
    # By level: what is read there, and from which order on.
    reads: dict[int, list[tuple[int, Tensor]]] = {}
    values: list[tuple[Part, Float[Tensor, " order"]]] = []
    for index in reversed(range(len(frozen.steps))):
        step = frozen.steps[index]
        values.append((step.bias, _dot(lambdas[:n_orders], step.constant)))
        if step.norm is not None:
            lambdas[:n_orders] = step.norm.transpose(lambdas[:n_orders])
        reads.setdefault(step.reads, []).extend(_read(step, lambdas[:n_orders], chosen))
        for first, read in reads.pop(index, ()):
            n_orders = max(n_orders, first + len(read))
            lambdas[first : first + len(read)] += read
        if progress is not None:
            progress(len(frozen.steps) - index, len(frozen.steps))
    lambdas = lambdas[:n_orders]
    by_token = torch.stack([(lambdas * part).sum(-1) for part in frozen.sources.values()]).sum(0)
    values += [(part, _dot(lambdas, vector)) for part, vector in frozen.sources.items()]
    table = np.zeros((n_orders, len(values)))
    for index, (_, orders) in enumerate(reversed(values)):
        table[: len(orders), index] = orders.double().cpu().numpy()
    return OrderSpectrum(
        label=direction.label,
        model_name=frozen.model.name,
        str_tokens=frozen.str_tokens,
        sources=tuple(part for part, _ in reversed(values)),
        values=table,
        by_token=by_token.double().cpu().numpy(),
        unit=direction.unit,
        bias=direction.bias,
        total=direction.total,
        residual=float(table.sum()) + direction.bias - direction.total,
    )


def _dot(lambdas: Float[Tensor, "order pos d_model"], x: Float[Tensor, "pos d_model"]) -> Tensor:
    return lambdas.flatten(1) @ x.flatten()


def _read(
    step: Step, lambdas: Float[Tensor, "order pos d_model"], chosen: set[Part]
) -> list[tuple[int, Float[Tensor, "order pos d_model"]]]:
    """What the sublayer reads, and its first order: one higher through components that are counted."""
    counted = torch.tensor([part in chosen for part in step.components], device=lambdas.device)
    if counted.all() or not counted.any():
        return [(int(counted.all()), step.sublayer.transpose(lambdas))]
    return [
        (1, step.sublayer.only(counted).transpose(lambdas)),
        (0, step.sublayer.only(~counted).transpose(lambdas)),
    ]


def added(
    first: Float[Tensor, "orders pos d_model"], second: Float[Tensor, "others pos d_model"] | None
) -> Float[Tensor, "most pos d_model"]:
    """The sum of two stacks of which one may be longer."""
    if second is None:
        return first
    if len(first) < len(second):
        first, second = second, first
    whole = first.clone()
    whole[: len(second)] += second
    return whole


def counted_parts(frozen: FrozenNetwork, counted: str | Collection[Part]) -> set[Part]:
    """The components that a word or a list means.

    Raises:
        ConfigError: another word, or components that the model does not have.
    """
    known = {part: step.kind for step in frozen.steps for part in step.components}
    if isinstance(counted, str):
        if counted not in KINDS:
            raise ConfigError(f"cannot count {counted[:40]!r}: there are {', '.join(KINDS)}")
        return {part for part, kind in known.items() if kind in KINDS[counted]}
    if strange := [part for part in counted if part not in known]:
        raise ConfigError(f"{frozen.model.name} has no component {strange[0].label}")
    return set(counted)
