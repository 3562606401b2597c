"""Muon for the matrices inside a transformer's layers, AdamW or SGD for all else.

Muon (Jordan et al. 2024) follows the orthogonalised momentum: all singular values of an update are equal.
An attention weight is stored head by head, `W_Q [head d_model d_head]`, and so is orthogonalised head by
head: heads do not share singular directions, and the Newton-Schulz iteration works on d_head-square
matrices, where the whole layer's would be d_model-square.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workbench.training.config import TrainingConfig
from workbench.training.wires import Network

# Jordan's quintic: drives singular values towards 1 in five steps, to within about 30 %.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_ATTENTION = ("W_Q", "W_K", "W_V", "W_O")
_MLP = ("W_in", "W_out", "W_gate")


class Muon(torch.optim.Optimizer):
    """Muon over matrices `[row column]` or stacks of them `[head row column]`, in float32.

    `torch.optim.Muon` takes single matrices only and computes in bfloat16, slow without AMX.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    update = self._momentum(weight, group["momentum"])
                    rows, columns = sorted(update.shape[-2:])
                    alike.setdefault((rows, columns), []).append((weight, update))
            for pairs in alike.values():
                self._move(pairs, group)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(buffer, momentum)

    def _move(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """All matrices of one shape are orthogonalised as one batch."""
        wide = [_as_wide(update) for _, update in pairs]
        done = orthogonalised(torch.cat(wide)).split([len(stack) for stack in wide])
        for (weight, update), stack in zip(pairs, done, strict=True):
            is_tall = update.shape[-2] > update.shape[-1]
            direction = (stack.mT if is_tall else stack).reshape(weight.shape)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(direction, alpha=-group["lr"] * _gain(weight))


def _as_wide(update: Tensor) -> Tensor:
    stack = update if update.ndim == 3 else update[None]
    return stack.mT if stack.shape[-2] > stack.shape[-1] else stack


def _gain(weight: Tensor) -> float:
    """√(out/in) where a matrix widens, so that its outputs move alike; 1 for the heads of an attention."""
    rows, columns = weight.shape[-2:]
    return max(1.0, columns / rows) ** 0.5 if weight.ndim == 2 else 1.0


def orthogonalised(matrices: Tensor) -> Tensor:
    """Each of `[matrix row column]`, rows <= columns, its singular values driven to 0.7 to 1.2."""
    x = matrices / matrices.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


def optimizers_for(model: Network, config: TrainingConfig) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of a run by name; between them every parameter stands exactly once."""
    inner = {
        name: parameter
        for name, parameter in model.named_parameters()
        if config.muon_lr is not None and name.rsplit(".", 1)[-1] in _ATTENTION + _MLP
    }
    outer = [parameter for name, parameter in model.named_parameters() if name not in inner]
    optimizers: dict[str, torch.optim.Optimizer] = {config.optimizer: _outer(outer, config)}
    if inner:
        optimizers["muon"] = Muon(
            inner.values(), lr=config.muon_lr or 0.0, weight_decay=config.weight_decay
        )
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _outer(parameters: Iterable[Tensor], config: TrainingConfig) -> torch.optim.Optimizer:
    own: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **own)
    return torch.optim.AdamW(parameters, betas=config.betas, **own)
