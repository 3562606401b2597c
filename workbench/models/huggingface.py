"""Hugging Face folders: config.json with a `model_type`, safetensors, tokenizer.json.

No pickle is read and no code of the folder is run.

What the config claims is compared with what the files hold before anything is allocated.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from workbench.errors import CheckpointError, UnsupportedError, WorkbenchError
from workbench.models.bridge import BridgeModel
from workbench.models.certify import certificate, probe_tokens
from workbench.models.families import BridgeConfig, Family, bridge_config, family_of
from workbench.models.files import MAX_CONFIG_BYTES, first_line, read_json
from workbench.models.target import Target
from workbench.models.tokenizer import Tokenizer
from workbench.models.tokens import check_vocabulary

MAX_PARAMS = 4_000_000_000
MAX_LAYERS = 512
MAX_SIZE = 10_000_000
# What a head that the folder does not claim to hold may add to its count of parameters.
_SLACK = 2_000_000
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


def load_folder(folder: Path, target: Target, *, name: str | None = None) -> BridgeModel:
    """A model from a folder as `save_pretrained` writes it.

    Raises:
        CheckpointError: a file is missing, broken, or not what the config says.
        UnsupportedError: an architecture that is not in `families.FAMILIES`.
    """
    name = name or folder.name
    config = read_json(folder / "config.json")
    family = family_of(config.get("model_type"))
    _check_sizes(folder, config)
    n_held = sum(_elements(path) for path in _weight_files(folder))
    tokenizer = read_tokenizer(folder)
    with quiet():
        hf_config = _checked_config(folder, family, n_held)
        target.progress(f"reading {n_held / 1e6:.0f} million weights of {name}")
        has_unembed = _has_unembed(config)
        hf_model = _read(folder, hf_config, target.dtype, has_unembed).to(target.device)
    try:
        cfg = bridge_config(hf_config, has_unembed=has_unembed)
        check_vocabulary(tokenizer, cfg.d_vocab, str(folder))
        return certified(hf_model, cfg, tokenizer, name)
    except WorkbenchError:
        raise
    except Exception as error:  # a config may hold anything where the libraries expect something
        raise CheckpointError(
            f"{folder / 'config.json'} describes a model that does not run: {first_line(error)}"
        ) from error


def certified(
    hf_model: Any, cfg: BridgeConfig, tokenizer: Tokenizer | None, name: str
) -> BridgeModel:
    """The bridged model, compared with the plain one, which must be run before it is changed in place."""
    probe = probe_tokens(tokenizer, cfg.d_vocab, cfg.n_ctx).to(next(hf_model.parameters()).device)
    with torch.inference_mode():
        plain = hf_model(probe) if cfg.has_unembed else hf_model.base_model(probe)
    expected = plain.logits if cfg.has_unembed else plain.last_hidden_state
    model = BridgeModel(hf_model, cfg, tokenizer, name=name)
    last = f"blocks.{cfg.n_layers - 1}.hook_resid_post"
    with torch.inference_mode():
        found, cache = model.run_with_cache(probe, last)
        found = found if cfg.has_unembed else cache[last]
    source = f"the logits of transformers' {type(hf_model).__name__}"
    if not cfg.has_unembed:
        source = (
            f"the final hidden states of {type(hf_model.base_model).__name__} (it has no logits)"
        )
    model.certificate = certificate(source, expected, found)
    return model


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer, from tokenizer.json or else from the older vocabulary files; None without."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(folder / "tokenizer.json")
    if not any(
        (folder / file).is_file() for file in ("vocab.json", "vocab.txt", "tokenizer.model")
    ):
        return None
    from transformers import AutoTokenizer

    try:
        with quiet():
            fast = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
        return Tokenizer(fast.backend_tokenizer, folder.name)
    except Exception as error:  # every reader of an old format raises its own kind
        raise CheckpointError(f"{folder}: the tokenizer files cannot be read: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the transformers library's log and progress bars, and give them back afterwards."""
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def _check_sizes(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a config whose numbers alone would exhaust the machine."""
    if "quantization_config" in config:
        raise UnsupportedError(
            f"{folder} holds quantised weights: convert them to float16 or float32"
        )
    for key, value in config.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        low, high = (1, MAX_LAYERS) if key in _LAYER_COUNTS else (-MAX_SIZE, MAX_SIZE)
        if not low <= value <= high:
            raise CheckpointError(
                f"{folder / 'config.json'}: {key} must be from {low:,} to {high:,}, not {value:.6g}"
            )


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, those of an index if it has one."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = read_json(index, limit=16 * MAX_CONFIG_BYTES).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
            raise CheckpointError(f"{index} has no weight_map from tensor to file name")
        files = [folder / name for name in sorted(set(names.values()))]
        if wrong := [
            file for file in files if file.parent != folder or file.suffix != ".safetensors"
        ]:
            raise CheckpointError(
                f"{index} names {wrong[0].name[:60]!r}, no .safetensors file beside it"
            )
        return files
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if pickles := [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]:
        raise CheckpointError(
            f"{folder} holds its weights in {pickles[0]}, which may run code when it is read. Only "
            "safetensors are read: convert it with save_pretrained(..., safe_serialization=True)"
        )
    raise CheckpointError(f"no model.safetensors in {folder}")


def _elements(path: Path) -> int:
    """Number of weights in a safetensors file, from its header alone."""
    try:
        with safe_open(path, framework="pt") as file:
            return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error


def _checked_config(folder: Path, family: Family, n_held: int) -> Any:
    """transformers' own config object, once a model without memory has been built from it and counted."""
    import transformers

    try:
        hf_config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):
            model_class = getattr(transformers, family.model_class)
            empty = model_class._from_config(hf_config, attn_implementation="eager")
        n_claimed = sum(parameter.numel() for parameter in empty.parameters())
    except Exception as error:  # each config validates itself in its own way
        raise CheckpointError(
            f"{folder / 'config.json'} describes no model: {first_line(error)}"
        ) from error
    if n_claimed > min(MAX_PARAMS, 1.05 * n_held + _SLACK):
        raise CheckpointError(
            f"{folder}: config.json describes {n_claimed:,} parameters, the files hold {n_held:,} "
            f"(the limit is {MAX_PARAMS:,})"
        )
    return hf_config


def _has_unembed(config: dict[str, Any]) -> bool:
    """Whether a folder claims a trained head; of encoders, only those with a masked-language-model head."""
    if config["model_type"] != "bert":
        return True
    return "BertForMaskedLM" in (config.get("architectures") or [])


def _read(folder: Path, hf_config: Any, dtype: torch.dtype, has_unembed: bool) -> Any:
    import transformers

    model_class = getattr(transformers, family_of(hf_config.model_type).model_class)
    try:
        # A head that is missing from the files is drawn at random: not from the caller's generator.
        with torch.random.fork_rng(devices=[]):
            model, report = model_class.from_pretrained(
                folder,
                config=hf_config,
                dtype=dtype,
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # shape mismatches and broken shards come as several kinds
        raise CheckpointError(f"{folder} cannot be read: {first_line(error)}") from error
    missing = [key for key in report["missing_keys"] if has_unembed or not key.startswith("cls.")]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the weights that its config asks for, such as {missing[0]}"
        )
    for key, weight in model.named_parameters():
        # A sum is finite only if every term is: one pass over the weights, and no copy.
        if not math.isfinite(float(weight.detach().sum())):
            raise CheckpointError(f"{folder}: {key} holds values that are not finite")
    return model.eval()
