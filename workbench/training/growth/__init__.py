"""Growing a network while it is trained: new heads, layers or channels, and the old part frozen or not.

    add_heads, add_layers, add_channels    (model) → a larger one of the same logits, and which numbers are old
    Frozen                                 numbers that training leaves as they are, to the bit
    train_in_turn                          train, grow, train what is new, grow …; resumable at any step

The old weights stand in the leading corner of the new ones: heads and channels are added behind the old.
Sources: Chen et al. 2016, "Net2Net" (growth that preserves the function); Fahlman & Lebiere 1990, "The
Cascade-Correlation Learning Architecture" (units added one by one, the old ones frozen); Belilovsky et al.
2019, "Greedy Layerwise Learning Can Scale to ImageNet".
"""

from workbench.training.growth.additions import Grown, add_heads, add_layers
from workbench.training.growth.channels import add_channels
from workbench.training.growth.frozen import Frozen
from workbench.training.growth.stages import (
    SHARED,
    Addition,
    Turns,
    channels_then,
    heads_in_turn,
    layers_in_turn,
    train_in_turn,
    train_stage,
)

__all__ = [
    "SHARED",
    "Addition",
    "Frozen",
    "Grown",
    "Turns",
    "add_channels",
    "add_heads",
    "add_layers",
    "channels_then",
    "heads_in_turn",
    "layers_in_turn",
    "train_in_turn",
    "train_stage",
]
