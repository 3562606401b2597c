"""Group lasso: whole heads, channels or neurons go to zero together, or not at all.

    value = Σ_groups √n_g · ‖w_g‖₂                n_g weights in the group (Yuan and Lin 2006)

A head's group is its W_Q, W_K, W_V and W_O; where query heads share keys and values, each query head has
W_Q and W_O, and each key/value head its W_K and W_V. A unit's group is all wires at it: those of one channel
reach over every layer. Scale: n weights of size s cost n·s, as in L1. Invariances: rotations inside a
group, so any basis of a head's neurons; for heads also rotations of the stream. Not rescaling: a smaller W_V
and a larger W_O are the same head at another cost. At zero the gradient is taken as zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError, UnsupportedError
from workbench.models.layers import Attention
from workbench.models.transformer import Transformer
from workbench.training.regularizers.strength import Regularizer
from workbench.training.wires import Network, groups, wires


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadLasso(Regularizer):
    """Group lasso over attention heads."""

    def value(self, model: Network, step: int = 0) -> Tensor:
        """Σ over heads of √n times the norm of all weights.

        Raises:
            UnsupportedError: a model without attention.
        """
        layers = [b.attn for b in model.blocks if b.attn] if isinstance(model, Transformer) else []
        if not layers:
            raise UnsupportedError(f"{model.name} has no attention heads")
        found = [norms for attn in layers for norms in _of_heads(attn)]
        return torch.cat(found).sum()


def _of_heads(attn: Attention) -> Iterator[Float[Tensor, " head"]]:
    kinds: tuple[tuple[str, ...], ...] = (("W_Q", "W_K", "W_V", "W_O"),)
    if attn.group > 1:
        kinds = (("W_Q", "W_O"), ("W_K", "W_V"))
    sizes = torch.tensor(attn.head_sizes, device=attn.W_Q.device)
    for leaves in kinds:
        squares = torch.stack([getattr(attn, leaf).pow(2).sum((1, 2)) for leaf in leaves]).sum(0)
        counts = len(leaves) * attn.config.d_model * sizes[: len(squares)]
        yield counts.to(squares).sqrt() * root(squares)


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitLasso(Regularizer):
    """Group lasso over units: channels of the stream, neurons of an MLP.

    Args:
        groups: names or patterns of groups of units.
    """

    groups: tuple[str, ...] = ("stream", "hidden *")

    def value(self, model: Network, step: int = 0) -> Tensor:
        """Σ over units of √n times the norm of all wires at it.

        Raises:
            ConfigError: no group fits the patterns.
        """
        total = []
        for name in fitting(groups(model), self.groups, model.name):
            squares, counts = squares_at(model, name)
            total.append((counts**0.5 * root(squares)).sum())
        return torch.stack(total).sum()


def squares_at(model: Network, group: str) -> tuple[Float[Tensor, " unit"], float]:
    """Σ w² over all wires at each unit of a group, and how many those are."""
    found, count = [], 0.0
    for block in wires(model):
        n_source, n_target = block.weight.shape
        if block.source == group:
            found.append(block.weight.pow(2).sum(1) / block.copies)
            count += n_target / block.copies
        if block.target == group:
            found.append(block.weight.pow(2).sum(0) / block.copies)
            count += n_source / block.copies
    return torch.stack(found).sum(0), count


def fitting(names: dict[str, int], patterns: tuple[str, ...], model_name: str) -> list[str]:
    """The names that fit one of the patterns.

    Raises:
        ConfigError: none does.
    """
    found = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        raise ConfigError(f"nothing of {model_name} fits {patterns}: it has {', '.join(names)}")
    return found


def root(x: Tensor) -> Tensor:
    """The square root, with slope 0 at 0 where it would be infinite."""
    return torch.where(x > 0, x.clamp(min=torch.finfo(x.dtype).tiny).sqrt(), 0)
