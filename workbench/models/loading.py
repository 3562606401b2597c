"""`load`: one door to every model, whatever its origin.

name of the zoo ─┐
folder or file ──┼─ ours ─────────────────────────────────────────► Transformer
                 ├─ nanoGPT, minGPT ── convert ───────────────────► Transformer
package ─────────┼─ GGUF ── gguf (converted once, cached) ─┐
hf:<id> ─────────┴─ Hugging Face folder ── huggingface ────┴──────► BridgeModel
"""

import os
from pathlib import Path

from workbench.errors import CheckpointError, ConfigError, UnknownModelError
from workbench.models import catalog
from workbench.models.checkpoints import FORMAT, load_checkpoint
from workbench.models.files import read_json, step_of
from workbench.models.protocol import Model
from workbench.models.target import Progress, Target


def load(
    name_or_path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    step: int | None = None,
    progress: Progress | None = None,
) -> Model:
    """A model, ready to run.

    Args:
        name_or_path: a name of `list_models()`; a folder or `.safetensors` file of ours; a Hugging Face
            folder; a `.gguf` file; a nanoGPT or minGPT checkpoint; or `hf:<id>`, which alone asks the hub.
        dtype: "float32", "float64" or "bfloat16".
        step: the training step, of a model that keeps earlier checkpoints.
        progress: is told of slow steps, one line each.

    Raises:
        UnknownModelError: nothing of that name; the message lists what exists.
        CheckpointError: a file that is broken, hostile, or not what its config says.
        ConfigError: a device or dtype that does not exist here, or a step that is no whole number.
        UnsupportedError: an architecture that the workbench does not read.
    """
    name = catalog.checked_name(name_or_path)
    _check_step(step)
    target = Target.named(device, dtype, progress)
    if name.startswith("hf:"):
        from workbench.models.hub import load_from_hub

        _refuse_step(name, step)
        return load_from_hub(name.removeprefix("hf:"), target)
    path = catalog.bundled_folder(name)
    if path is None and name in catalog.PACKAGES:
        _refuse_step(name, step)
        return _from_package(name, target)
    path = path or _existing(name)
    return _from_folder(path, step, target) if path.is_dir() else _from_file(path, step, target)


def _check_step(step: object) -> None:
    if step is not None and type(step) is not int:
        raise ConfigError(f"step must be a whole number or None, not {step!r:.60}")


def _refuse_step(name: str | Path, step: int | None) -> None:
    if step is not None:
        raise CheckpointError(f"{name} keeps no checkpoints of its training: leave out step")


def _existing(name: str) -> Path:
    path = catalog.existing_path(name)
    if path is None:
        raise UnknownModelError(f"no model {name[:60]!r}. {catalog.suggestion(name)}")
    return path


def _from_folder(folder: Path, step: int | None, target: Target) -> Model:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"no model in {folder}: there is no config.json in it. Give the folder that holds one"
        )
    config = read_json(folder / "config.json")
    if config.get("format") == FORMAT:
        return _ours(folder, step, target)
    _refuse_step(folder, step)
    if "model_type" in config:
        from workbench.models.huggingface import load_folder

        return load_folder(folder, target)
    raise CheckpointError(
        f'{folder / "config.json"} is neither a workbench config ("format": "{FORMAT}") '
        'nor a Hugging Face one ("model_type")'
    )


def _from_file(path: Path, step: int | None, target: Target) -> Model:
    if not path.is_file():
        raise CheckpointError(f"{path} is no model file: it is neither a file nor a folder")
    beside = path.parent / "config.json"
    if path.suffix == ".safetensors" and _is_ours(path.parent):
        if path.name != "model.safetensors":
            raise CheckpointError(
                f"{path} does not belong to {beside}, whose weights are model.safetensors"
            )
        return _ours(path.parent, step, target)
    _refuse_step(path, step)
    earlier = step_of(path.name)
    # The folder above is asked for by its full name: what is above a bare "checkpoints" has none.
    above = path.absolute().parent.parent
    if earlier is not None and path.absolute().parent.name == "checkpoints" and _is_ours(above):
        return _ours(above, earlier, target)
    if path.suffix == ".gguf":
        from workbench.models.gguf import load_gguf

        return load_gguf(path, target)
    if path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
        from workbench.models.convert import load_gpt_file

        return load_gpt_file(path, target)
    raise CheckpointError(
        f"{path} is no model file: read are .safetensors, .gguf, .pt, .pth, .bin and .ckpt"
    )


def _from_package(name: str, target: Target) -> Model:
    path = catalog.package_weights(name)
    if path.is_dir():
        from workbench.models.huggingface import load_folder

        return load_folder(path, target, name=name)
    from workbench.models.gguf import load_gguf

    return load_gguf(path, target, name=name)


def _is_ours(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("format") == FORMAT


def _ours(folder: Path, step: int | None, target: Target) -> Model:
    model = load_checkpoint(folder, step=step)
    return model.to(device=target.device, dtype=target.dtype)
