"""How modular a trained network is, measured against itself shuffled, never without its loss and its wiring."""

from workbench.training.modularity.pruning import Pruning, masked, prune
from workbench.training.modularity.report import Modularity, Options, modularity

__all__ = ["Modularity", "Options", "Pruning", "masked", "modularity", "prune"]
