"""Wiring length: every connection costs its size times its length (brain-inspired modular training).

    value = Σ_blocks red(|W| ⊙ (A·d + y0)) + Σ red(y0·|b|) + red(y0·|W_E|)        red = sum or mean

with d the distance between the two units, A `per_distance`, y0 `gap` (Liu, Gan, Tegmark 2023, "Seeing is
Believing: Brain-Inspired Modular Training for Mechanistic Interpretability"). Scale: of absolute weights.
With "mean" a weight costs λ/numel of its matrix, so λ is not comparable with that of "sum", nor between
matrices of unlike size; query, key and value are a matrix each.

Invariances: none under rescaling (halving W_in and doubling W_out changes it), which a norm's gain can
undo without cost. The gap is an L1 part that no placement removes: without it, wires between units that
face each other are free. Only swaps lower it at an unchanged function.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.regularizers.strength import Regularizer, Strength, check_amount
from workbench.training.wires import Network, Wires, biases, wires

Reduction = Literal["sum", "mean"]
LOOKUPS = ("embed.W_E", "pos_embed.W_pos")


@dataclass(frozen=True, kw_only=True, eq=False)
class WiringLength(Regularizer):
    """The length of all wires, as a penalty.

    Args:
        per_distance: A; 0 leaves an L1 penalty of strength λ·y0.
        gap: y0, the distance between two layers.
        reduction: "sum" (as published for formulas and two moons) or "mean" per tensor (for the others).
        bias: times y0, what a bias costs; may change by share of the steps. Published: 1, in the formulas
            only after three quarters.
        embedding: whether tables of tokens and positions cost y0 times their entries too.
        last_distance: False = the last block costs y0 alone. Published for MNIST, whose swaps see all
            distances nevertheless.

    Raises:
        ConfigError: a negative or non-finite number.
    """

    layout: Layout
    per_distance: float | int = 1.0
    gap: float | int = 0.1
    reduction: Reduction = "sum"
    bias: Strength = 1.0
    embedding: bool = True
    last_distance: bool = True
    _factors: dict[tuple[object, ...], Tensor | float] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amount("per_distance", self.per_distance)
        check_amount("gap", self.gap)
        self._check_strength("bias", self.bias)

    def value(self, model: Network, step: int = 0) -> Tensor:
        """The wiring length; of scale Σ|w|, or its mean per tensor."""
        counted = [block for block in wires(model) if self.embedding or block.name not in LOOKUPS]
        total = torch.stack([self._length(block) for block in counted]).sum()
        bias = self.now(self.bias, step) * self.gap
        found = list(biases(model).values())
        if bias == 0 or not found:
            return total
        sizes = [reduced(bias_of.abs(), self.reduction) for bias_of in found]
        return total + bias * torch.stack(sizes).sum()

    def _length(self, block: Wires) -> Tensor:
        size = block.weight.abs()
        key = block.name, size.shape, size.dtype, size.device
        if key not in self._factors:
            self._factors[key] = self._factor(block)
        return reduced(size * self._factors[key], self.reduction, block.copies)

    def _factor(self, block: Wires) -> Tensor | float:
        """A·d + y0, made once for each block of a run."""
        distances = self.layout.distances(block)
        is_last = block.target in ("outputs", "logits")
        if distances is None or (is_last and not self.last_distance):
            return float(self.gap)
        return (self.per_distance * distances + self.gap).to(block.weight)


def reduced(cost: Tensor, reduction: Reduction, copies: int = 1) -> Tensor:
    """The sum over parameters (copies of one count once together), or the mean."""
    return cost.mean() if reduction == "mean" else cost.sum() / copies


def share_of_each(block: Wires, reduction: Reduction) -> float:
    """What one entry of a block counts in the reduction."""
    return 1 / (block.weight.numel() if reduction == "mean" else block.copies)


def wiring_length(model: Network, layout: Layout, reduction: Reduction = "sum") -> float:
    """Σ |w|·d over all wires that have a length, in float64; what swaps shorten."""
    total = 0.0
    for block in wires(model):
        distances = layout.distances(block)
        if distances is not None:
            size = block.weight.detach().double().abs().cpu()
            total += float((size * distances).sum()) * share_of_each(block, reduction)
    return total


def mean_wire_length(model: Network, layout: Layout) -> float:
    """Σ |w|·d / Σ |w|: the length of a wire, each weighed by its size; ⅓ at random on lines.

    Raises:
        ConfigError: no wire that has a length has any weight.
    """
    placed = [block for block in wires(model) if layout.distances(block) is not None]
    size = sum(float(block.weight.detach().double().abs().sum()) / block.copies for block in placed)
    if size == 0:
        raise ConfigError(f"{model.name} has no wires between units that have places")
    return wiring_length(model, layout) / size
