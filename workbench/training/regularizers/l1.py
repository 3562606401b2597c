"""L1: every connection costs its size, wherever its units stand.

    value = Σ_blocks red(|W|)                                       red = sum or mean per matrix

The control for wiring length: published ablations get most of their sparsity from this part alone. Scale:
of absolute weights; with "mean" a weight costs λ/numel of its matrix. Invariances: permuting units, flipping
signs; not rescaling, nor rotating the stream, which it therefore pins to its axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.training.regularizers.strength import Regularizer
from workbench.training.regularizers.wiring import LOOKUPS, Reduction, reduced
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

    def value(self, model: Network, step: int = 0) -> Tensor:
        """Σ|w|, or the sum of its means per matrix."""
        found = [
            reduced(block.weight.abs(), self.reduction, block.copies)
            for block in wires(model)
            if self.embedding or block.name not in LOOKUPS
        ]
        if self.bias:
            found += [reduced(each.abs(), self.reduction) for each in biases(model).values()]
        return torch.stack(found).sum()
