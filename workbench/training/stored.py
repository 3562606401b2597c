"""The weights of a run at any time: finished, at a snapshot, or as last saved on the way."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import CheckpointError, ConfigError
from workbench.models import checkpoints
from workbench.models.checkpoints import load_checkpoint, read_config
from workbench.models.files import read_json, step_name
from workbench.models.tokenizer import Tokenizer
from workbench.models.transformer import Transformer
from workbench.training import mlp
from workbench.training.folders import is_trained
from workbench.training.mlp import MLP, MLPConfig, load_mlp
from workbench.training.state import STATE_FILE
from workbench.training.wires import Network
from workbench.writing import write_atomically


def describe_network(path: Path, model: Network) -> None:
    """Write config and tokenizer before the first step, so that snapshots can be read meanwhile."""
    if isinstance(model, Transformer) and model.tokenizer is not None:
        write_atomically(path / "tokenizer.json", model.tokenizer.backend.to_str(pretty=True))
    kind = mlp.FORMAT if isinstance(model, MLP) else checkpoints.FORMAT
    config = {"format": kind, **asdict(model.cfg)}
    write_atomically(path / "config.json", json.dumps(config, indent=1))


def load_weights(path: Path, step: int | None, snapshots: tuple[int, ...]) -> Network:
    """The network of a run, in evaluation mode.

    Args:
        step: one of its snapshots; None = finished, or else the newest weights that there are.

    Raises:
        CheckpointError: no such snapshot, no weights yet, or broken ones.
    """
    if step is None:
        return _newest(path, snapshots)
    if step not in snapshots:
        known = ", ".join(map(str, snapshots)) or "none yet"
        raise CheckpointError(f"{path.name} has no snapshot of step {step}: there are {known}")
    return _snapshot(path, step)


def _newest(path: Path, snapshots: tuple[int, ...]) -> Network:
    state = path / STATE_FILE
    for _ in range(2):
        if is_trained(path):
            return load_mlp(path) if _is_mlp(path) else load_checkpoint(path)
        try:
            if state.is_file():
                return _of_state(path, state)
        except CheckpointError:
            # The run may just have finished, and its state be gone.
            if state.is_file():
                raise
    if not snapshots:
        raise CheckpointError(f"{path.name} has no weights yet: nothing was saved so far")
    return _snapshot(path, snapshots[-1])


def _is_mlp(path: Path) -> bool:
    return read_json(path / "config.json").get("format") == mlp.FORMAT


def _snapshot(path: Path, step: int) -> Network:
    folder = path / "checkpoints" / Path(step_name(step)).stem
    if not folder.is_dir():
        return load_checkpoint(path, step=step)
    model = load_mlp(folder)
    model.name = path.name
    return model


def _of_state(path: Path, state: Path) -> Network:
    """The weights in the file from which the run would go on."""
    try:
        with safe_open(state, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith("model/")]  # noqa: SIM118
            weights = {name.removeprefix("model/"): file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{state} is not a whole safetensors file: {error}") from error
    with torch.device("meta"):
        expected = _untrained(path).state_dict()
    _compare(state, weights, expected)
    model = _untrained(path)
    dtype = next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    model.to(dtype).load_state_dict(weights)
    return model.eval()


def _untrained(path: Path) -> Network:
    if not _is_mlp(path):
        has_tokenizer = (path / "tokenizer.json").is_file()
        tokenizer = Tokenizer.from_file(path / "tokenizer.json") if has_tokenizer else None
        return Transformer(read_config(path / "config.json"), tokenizer, name=path.name)
    values = read_json(path / "config.json")
    values.pop("format")
    try:
        return MLP(MLPConfig.from_dict(values), name=path.name)
    except ConfigError as error:
        raise CheckpointError(f"{path}/config.json: {error}") from error


def _compare(state: Path, weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if names := sorted(set(weights) ^ set(expected)):
        raise CheckpointError(f"{state} and the config beside it differ in {names[0][:60]}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape or not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{state}: {name} is misshapen or not finite")
