"""The state of an unfinished run: weights, optimiser moments and counters in one safetensors file.

One file, replaced atomically, cannot hold the weights of one step and the moments of another. The counters
are JSON in its header. Nothing is pickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.errors import CheckpointError
from workbench.training.folders import STATE_FILE
from workbench.training.wires import Network
from workbench.writing import whole_file

__all__ = ["STATE_FILE", "read_counters", "restore_state", "save_state"]


def save_state(
    path: Path,
    model: Network,
    optimizers: Mapping[str, torch.optim.Optimizer],
    counters: Mapping[str, Any],
) -> None:
    """Write everything that the next step depends on."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for kind, optimizer in optimizers.items():
        for parameter, moments in optimizer.state.items():
            for moment, value in moments.items():
                tensors[f"{kind}/{moment}/{names[parameter]}"] = value
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as scratch:
        save_file(whole, scratch, metadata={"counters": json.dumps(counters)})


def read_counters(path: Path) -> dict[str, Any]:
    """The counters of a saved state.

    Raises:
        CheckpointError: not a state that `save_state` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            counters = json.loads((file.metadata() or {})["counters"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not the state of a training run: {error}") from error
    if not isinstance(counters, dict):
        raise CheckpointError(f"{path}: its counters must be a JSON object")
    return counters


def restore_state(
    path: Path, model: Network, optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Put a saved state back into a model and its optimisers.

    Raises:
        CheckpointError: a broken file, or the state of a model of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    weights = {name: tensors.pop(f"model/{name}", None) for name in model.state_dict()}
    missing = sorted(name for name, tensor in weights.items() if tensor is None)
    if missing:
        raise CheckpointError(f"{path} lacks {missing[0]}: it belongs to another model")
    for name, tensor in weights.items():
        if name.endswith("_perm") and not torch.equal(
            tensor.sort().values, torch.arange(len(tensor))
        ):
            raise CheckpointError(f"{path}: {name} is no permutation")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} belongs to a model of another shape: {error}") from error
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        moment, _, name = rest.partition("/")
        if kind not in optimizers or name not in parameters:
            raise CheckpointError(f"{path} has the unexpected {key[:80]}")
        _check_moment(path, key, tensor, parameters[name])
        optimizers[kind].state[parameters[name]][moment] = tensor


def _check_moment(path: Path, key: str, tensor: Tensor, parameter: Tensor) -> None:
    # AdamW counts its steps in a scalar; every other moment is shaped like its weight.
    if tensor.ndim and tensor.shape != parameter.shape:
        shapes = f"{list(tensor.shape)}; its weight is {list(parameter.shape)}"
        raise CheckpointError(f"{path}: {key[:80]} is {shapes}")
