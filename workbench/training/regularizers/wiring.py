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
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.layouts import Layout
from workbench.training.mlp import MLP
from workbench.training.regularizers.prices import PricedSizes
from workbench.training.regularizers.strength import Regularizer, Strength, check_amount
from workbench.training.wires import Network, Wires, as_parameter, biases, wires

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
    _sizes: PricedSizes = field(default_factory=PricedSizes, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amount("per_distance", self.per_distance)
        check_amount("gap", self.gap)
        self._check_strength("bias", self.bias)

    def value(self, model: Network, step: int = 0) -> Tensor:
        """The wiring length; of scale Σ|w|, or its mean per tensor."""
        return self._scaled(model, step, 1.0)

    def _scaled(self, model: Network, step: int, strength: float) -> Tensor:
        # λ is part of the price: of a small network's step every operation is a noticeable share.
        bias = self.now(self.bias, step) * self.gap
        variant: tuple[float, ...] = (strength, bias)
        if isinstance(model, MLP) and model.embed is not None and "tokens" in self.layout.places:
            # Only then does it matter which embedded input stands where.
            variant += tuple(model.in_perm.tolist())
        return self._sizes(model, lambda: self._prices(model, bias), strength, variant)

    def _prices(self, model: Network, bias: float) -> dict[str, Tensor]:
        """What a unit of each weight costs, in the shape of the parameters."""
        found = {}
        for block in wires(model):
            if self.embedding or block.name not in LOOKUPS:
                factor = self._factor(block)
                found[block.name] = price_of_parameter(model, block, factor, self.reduction)
        for name, weight in biases(model).items() if bias else ():
            price = bias * share_of_bias(weight, self.reduction)
            found[name] = torch.full_like(weight, price, dtype=torch.float64)
        return found

    def _factor(self, block: Wires) -> Float[Tensor, "source target"]:
        """A·d + y0, in float64."""
        distances = self.layout.distances(block)
        is_last = block.target in ("outputs", "logits")
        if distances is None or (is_last and not self.last_distance):
            return torch.full(block.weight.shape, float(self.gap), dtype=torch.float64)
        return self.per_distance * distances + self.gap


def share_of_each(block: Wires, reduction: Reduction) -> float:
    """What one entry of a block counts in the reduction."""
    return 1 / (block.weight.numel() if reduction == "mean" else block.copies)


def share_of_bias(bias: Tensor, reduction: Reduction) -> float:
    """What one bias counts in the reduction."""
    return 1 / bias.numel() if reduction == "mean" else 1.0


def price_of_parameter(
    model: Network, block: Wires, factor: Float[Tensor, "source target"], reduction: Reduction
) -> Tensor:
    """What a unit of each weight of a block costs, in the shape of its parameter."""
    # The factors of copies are averaged there, and a number of the parameter counts for them all.
    share = share_of_each(block, reduction) * block.copies
    return as_parameter(model, block.name, factor) * share


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
