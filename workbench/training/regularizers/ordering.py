"""Ordered channels: the symmetry between channels is broken, so that the first ones matter most.

    channel cost      Σ_c s_c Σ w²  over all wires at channel c,     s_c ∝ (c + 1)^power, of mean 1
    nested dropout    the loss with the first k channels alone, k drawn anew in each step
                      (Rippel, Gelbart, Adams 2014, who draw k geometrically; in a linear autoencoder it finds
                      the principal components in order)

Scale: of squared weights; of the task's loss. Invariances: neither admits a rotation or permutation of the
channels, which is the point. The cost is invariant to permutations of all other units; the truncated loss to
whatever the loss itself is.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.layers import Norm
from workbench.training.mlp import MLP
from workbench.training.regularizers.group_lasso import fitting, squares_at
from workbench.training.regularizers.strength import Regularizer, check_amount
from workbench.training.wires import Network, groups

CHANNELS = ("stream", "hidden *")
_STREAM = (
    "hook_embed",
    "hook_pos_embed",
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelCost(Regularizer):
    """Later channels cost more.

    Args:
        power: how much more; 0 = all alike, a plain L2 penalty.
        groups: names or patterns of groups of units.
    """

    power: float | int = 1.0
    groups: tuple[str, ...] = CHANNELS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amount("power", self.power)

    def value(self, model: Network, step: int = 0) -> Tensor:
        """Σ s_c w² over the wires at all channels.

        Raises:
            ConfigError: no group fits the patterns.
        """
        total = []
        for name in fitting(groups(model), self.groups, model.name):
            squares, _ = squares_at(model, name)
            costs = torch.arange(1, len(squares) + 1).to(squares) ** self.power
            total.append((squares * costs / costs.mean()).sum())
        return torch.stack(total).sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class NestedDropout(Regularizer):
    """The task's loss through the first k channels alone.

    Args:
        loss: (model, step) → the loss of the step's batch.
        rate: chance ratio of k + 1 to k, from 0 to below 1; None = every k alike.
        seed: with the step, draws k.
    """

    loss: Callable[[Any, int], Tensor]
    rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate is not None and not 0 <= self.rate < 1:
            raise ConfigError(f"rate must be a number from 0 to below 1, not {self.rate!r}")

    def value(self, model: Network, step: int = 0) -> Tensor:
        """The loss of the truncated model."""
        sizes = groups(model)
        names = fitting(sizes, CHANNELS, model.name)
        with first_channels(model, {name: self.kept(sizes[name], step) for name in names}):
            return self.loss(model, step)

    def kept(self, n: int, step: int) -> int:
        """k: how many of n channels stay in a step, 1 to n."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chance = float(torch.rand((), generator=generator, dtype=torch.float64))
        if self.rate is None:
            return 1 + int(chance * n)
        if self.rate == 0:
            return 1
        drawn = math.log1p(-chance * (1 - self.rate**n)) / math.log(self.rate)
        return min(n, 1 + int(drawn))


@contextmanager
def first_channels(model: Network, kept: Mapping[str, int]) -> Iterator[None]:
    """Inside the `with` block the network has only the first channels of some groups; the rest are zero.

    Raises:
        ConfigError: a group that is neither the stream nor a hidden layer, or a number out of range.
    """
    sizes = groups(model)
    for name, n in kept.items():
        if name not in sizes or name not in fitting(sizes, CHANNELS, model.name):
            raise ConfigError(f"no channels of {name!r} can be left out: only of {CHANNELS}")
        if not 0 <= n <= sizes[name]:
            raise ConfigError(f"{name!r} has {sizes[name]} channels; {n} of them cannot be kept")
    with ExitStack() as stack:
        if isinstance(model, MLP):
            for name, n in kept.items():
                layer = model.layers[int(name.split()[-1])]
                handle = layer.register_forward_hook(lambda _m, _x, out, n=n: _cut(out, n))
                stack.callback(handle.remove)
        elif "stream" in kept:
            n = kept["stream"]
            names = [name for name in model.hook_dict if name.endswith(_STREAM)]
            hooks = [(name, lambda activation, hook: _cut(activation, n)) for name in names]
            stack.enter_context(model.hooks(hooks))
            # A norm's mean and bias would fill the channels again.
            for norm in (module for module in model.modules() if isinstance(module, Norm)):
                handle = norm.register_forward_hook(lambda _m, _x, out: _cut(out, n))
                stack.callback(handle.remove)
        yield


def _cut(activation: Tensor, n: int) -> Tensor:
    mask = torch.arange(activation.shape[-1], device=activation.device) < n
    return activation * mask
