"""L1: every connection costs its size, wherever its units stand.

    value = Σ_blocks red(|W|)                                       red = sum or mean per matrix

The control for wiring length: published ablations get most of their sparsity from this part alone. Scale:
of absolute weights; with "mean" a weight costs λ/numel of its matrix. Invariances: permuting units, flipping
signs; not rescaling, nor rotating the stream, which it therefore pins to its axes.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from workbench.training.regularizers.prices import PricedSizes
from workbench.training.regularizers.strength import Regularizer
from workbench.training.regularizers.wiring import (
    LOOKUPS,
    Reduction,
    price_of_parameter,
    share_of_bias,
)
from workbench.training.wires import Network, biases, wires


@dataclass(frozen=True, kw_only=True, eq=False)
class L1(Regularizer):
    """The size of all wires, as a penalty.

    Args:
        bias: whether biases count too.
        embedding: whether tables of tokens and positions count too.
    """

    reduction: Reduction = "sum"
    bias: bool = False
    embedding: bool = True
    _sizes: PricedSizes = field(default_factory=PricedSizes, init=False, repr=False)

    def value(self, model: Network, step: int = 0) -> Tensor:
        """Σ|w|, or the sum of its means per matrix."""
        return self._scaled(model, step, 1.0)

    def _scaled(self, model: Network, step: int, strength: float) -> Tensor:
        return self._sizes(model, lambda: self._prices(model), strength, strength)

    def _prices(self, model: Network) -> dict[str, Tensor]:
        found = {
            block.name: price_of_parameter(
                model, block, torch.ones(block.weight.shape), self.reduction
            )
            for block in wires(model)
            if self.embedding or block.name not in LOOKUPS
        }
        for name, bias in biases(model).items() if self.bias else ():
            found[name] = torch.full_like(bias, share_of_bias(bias, self.reduction))
        return found
