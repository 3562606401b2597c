"""The sizes of all weights at a price each, as one product: what a penalty on single weights costs a step.

    Σ_p Σ_i price_pi |w_pi|  =  |w| · price         over the parameters of a network, laid end to end

Of a small network a step is little more than the number of its operations, and a penalty that visits every
matrix would cost half of it. So prices are made once, in the shape of the parameters, and kept for as long as
the network has the same parameters.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.training.wires import Network


@dataclass(frozen=True, eq=False)
class _Priced:
    """Parameters of one network by owner and name, and their prices end to end."""

    sites: tuple[tuple[nn.Module, str, Tensor], ...]
    prices: Float[Tensor, " weight"]

    def fits(self) -> bool:
        """Whether these are still the network's parameters, of the same kind."""
        kind = self.prices.dtype, self.prices.device
        return all(
            owner._parameters.get(leaf) is weight and (weight.dtype, weight.device) == kind
            for owner, leaf, weight in self.sites
        )

    def total(self) -> Float[Tensor, ""]:
        """Σ price · |w|."""
        return torch.cat([weight.flatten() for _, _, weight in self.sites]).abs() @ self.prices


class PricedSizes:
    """Σ price · |w| of networks whose prices do not change from step to step."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[nn.Module, dict[Hashable, _Priced]] = WeakKeyDictionary()

    def __call__(
        self,
        model: Network,
        prices: Callable[[], Mapping[str, Tensor]],
        strength: float,
        variant: Hashable,
    ) -> Float[Tensor, ""]:
        """The sum over the parameters that have a price, times a strength.

        Args:
            prices: by name of the parameter, shaped like it; asked for once for each network and variant.
            variant: all that prices and strength depend on beside the network.
        """
        variants = self._known.setdefault(model, {})
        found = variants.get(variant)
        if found is None or not found.fits():
            found = variants[variant] = _priced(model, prices(), strength)
        return found.total()


def _priced(model: Network, prices: Mapping[str, Tensor], strength: float) -> _Priced:
    sites, flat = [], []
    for name, price in prices.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        weight = getattr(owner, leaf)
        sites.append((owner, leaf, weight))
        flat.append((strength * price).to(weight).flatten())
    return _Priced(tuple(sites), torch.cat(flat))
