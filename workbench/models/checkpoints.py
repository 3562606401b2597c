"""Checkpoints of our own transformer: a folder of safetensors, config and tokenizer. Never pickle.

<folder>/config.json        {"format": "workbench-transformer-1", "order": "ss", "d_model": 256, …}
         model.safetensors  the weights; stored as float16 or float32, float32 once loaded
         tokenizer.json     optional
         checkpoints/step-000500.safetensors   optional: the same weights earlier in training
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.errors import CheckpointError, ConfigError, UnsupportedError
from workbench.models.config import TransformerConfig
from workbench.models.files import checkpoint_steps, read_json, step_name
from workbench.models.protocol import Model
from workbench.models.tokenizer import Tokenizer
from workbench.models.tokens import check_vocabulary
from workbench.models.transformer import Transformer
from workbench.writing import whole_file, write_atomically

FORMAT = "workbench-transformer-1"

_SAFETENSORS_FLOATS = {"F16", "BF16", "F32", "F64"}


def save_checkpoint(
    model: Model, folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> Path:
    """Write config, weights and tokenizer; each file appears whole or not at all.

    Raises:
        UnsupportedError: a model that is not our own transformer; nothing is written.
    """
    if not isinstance(model, Transformer):
        raise UnsupportedError(
            f"{model.name} is a {type(model).__name__}; only our own Transformer is saved in this format: "
            "keep the files that it was loaded from"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / "model.safetensors", dtype=dtype)
    if model.tokenizer is not None:
        write_atomically(folder / "tokenizer.json", model.tokenizer.backend.to_str(pretty=True))
    else:
        # One that an earlier model left here would be taken for this model's.
        (folder / "tokenizer.json").unlink(missing_ok=True)
    # The config comes last: a folder without one is not taken for a checkpoint.
    config = {"format": FORMAT, **asdict(model.cfg)}
    write_atomically(folder / "config.json", json.dumps(config, indent=1))
    return folder


def save_weights(model: Transformer, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights alone, atomically."""
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as scratch:
        save_file(tensors, scratch, metadata={"format": "pt"})


def load_checkpoint(folder: str | Path, *, step: int | None = None) -> Transformer:
    """Read a folder of ours; with `step`, its weights at that step of training.

    Raises:
        CheckpointError: a file is missing, broken, or holds other weights than the config describes.
    """
    folder = Path(folder)
    config = read_config(folder / "config.json")
    has_tokenizer = (folder / "tokenizer.json").is_file()
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json") if has_tokenizer else None
    check_vocabulary(tokenizer, config.d_vocab, str(folder))
    # Names and shapes are compared on the meta device, before a broken file can cost any memory.
    with torch.device("meta"):
        expected = Transformer(config).state_dict()
    weights = read_weights(weights_path(folder, step), expected)
    model = Transformer(config, tokenizer, name=folder.name)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def weights_path(folder: Path, step: int | None) -> Path:
    """The weights' file, final or of one training step.

    Raises:
        CheckpointError: no checkpoint of that step.
    """
    if step is None:
        return folder / "model.safetensors"
    steps = checkpoint_steps(folder)
    if step not in steps:
        raise CheckpointError(f"{folder.name} has no checkpoint of step {step}: there are {steps}")
    return folder / "checkpoints" / step_name(step)


def read_config(path: Path) -> TransformerConfig:
    """A config of ours.

    Raises:
        CheckpointError: of another format, or values that cannot be meant.
    """
    values = read_json(path)
    if values.pop("format", None) != FORMAT:
        raise CheckpointError(f'{path} is not a workbench config: it lacks "format": "{FORMAT}"')
    try:
        return TransformerConfig.from_dict(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file as float32, after names, shapes and types have been compared.

    Raises:
        CheckpointError: says which tensor is missing, unexpected, misshapen, mistyped or not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"no {path.name} in {path.parent}")
    try:
        with safe_open(path, framework="pt") as file:
            _compare(path, {name: file.get_slice(name) for name in file.keys()}, expected)  # noqa: SIM118
            weights = {name: file.get_tensor(name).float() for name in expected}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    return weights


def _compare(path: Path, found: dict[str, Any], expected: dict[str, Tensor]) -> None:
    for what, names in (
        ("lacks", sorted(set(expected) - set(found))),
        ("has the unexpected", sorted(set(found) - set(expected))),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{path} {what} {', '.join(n[:60] for n in names[:3])}{more}")
    for name, tensor in expected.items():
        shape, dtype = found[name].get_shape(), found[name].get_dtype()
        if list(shape) != list(tensor.shape):
            raise CheckpointError(
                f"{path}: {name} is {list(shape)}; the config asks for {list(tensor.shape)}"
            )
        if dtype not in _SAFETENSORS_FLOATS:
            raise CheckpointError(f"{path}: {name} has type {dtype}; weights are floating point")
