"""GGUF files (llama.cpp): unpacked once into a Hugging Face folder in the cache, then read from there.

$XDG_CACHE_HOME or ~/.cache /interp-workbench/gguf/<name>-<hash of the file's content>/
"""

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from workbench.cache import cache_root
from workbench.errors import CheckpointError, UnsupportedError
from workbench.models.families import FAMILIES
from workbench.models.files import first_line
from workbench.models.gguf_header import check_header
from workbench.models.huggingface import MAX_PARAMS, load_folder, quiet
from workbench.models.protocol import Model
from workbench.models.target import Target


def load_gguf(path: Path, target: Target, *, name: str | None = None) -> Model:
    """A model from a GGUF file.

    Raises:
        CheckpointError: broken, too large, or not a GGUF file.
        UnsupportedError: an architecture that is not in `families.FAMILIES`.
    """
    return load_folder(unpacked(path, target.progress), target, name=name or path.stem)


def unpacked(path: Path, progress: Callable[[str], None]) -> Path:
    """The folder of a GGUF file's weights as float32, made on first use.

    The folder appears under its name only when it is whole, so a broken conversion leaves nothing behind.
    """
    folder = cache_root() / "gguf" / f"{path.stem[:60]}-{_digest(path)}"
    if folder.is_dir():
        return folder
    _check(path)
    progress(
        f"unpacking {path.name} ({path.stat().st_size / 1e6:.0f} MB), once; later loads take a second"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _unpack_whole(path, folder)
    except OSError as error:
        raise CheckpointError(
            f"{path.name} cannot be unpacked into {folder.parent}: {first_line(error)}. "
            "Set XDG_CACHE_HOME to a folder with room"
        ) from error
    progress(f"unpacked into {folder}")
    return folder


def _unpack_whole(path: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as scratch:
        whole = Path(scratch) / "model"
        _unpack(path, whole)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was not faster: a true failure
                raise


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]


def _check(path: Path) -> None:
    """Compare what the header claims with the limits, before transformers unpacks it."""
    from gguf import GGUFReader

    check_header(path)
    try:
        reader: Any = GGUFReader(path)
        architecture = str(reader.get_field("general.architecture").contents())
        n_params = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except Exception as error:  # the reader trusts its input and fails in many ways
        raise CheckpointError(f"{path} is not a whole GGUF file: {first_line(error)}") from error
    if architecture not in FAMILIES:
        raise UnsupportedError(
            f"{path.name} holds a model of type {architecture[:40]!r}: read are {', '.join(FAMILIES)}"
        )
    if n_params > MAX_PARAMS:
        raise CheckpointError(f"{path} has {n_params:,} weights; the limit is {MAX_PARAMS:,}")


def _unpack(path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        # transformers' bar of this step heeds no setting of its own.
        with quiet(), contextlib.redirect_stderr(io.StringIO()):
            where = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
            model: Any = AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=torch.float32, **where
            )
            # save_pretrained refuses what still counts as quantised; the weights no longer are.
            model.hf_quantizer = None
            model.config.__dict__.pop("quantization_config", None)
            model.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
            tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    except Exception as error:
        raise CheckpointError(f"{path} cannot be unpacked: {first_line(error)}") from error
