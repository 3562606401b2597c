"""The Hugging Face hub, asked only for `hf:<id>`: configs, safetensors and tokenizers, never code or pickle."""

import contextlib
import re
from pathlib import Path

from workbench.errors import UnknownModelError
from workbench.models.files import first_line
from workbench.models.protocol import Model
from workbench.models.target import Target

_WANTED = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.*"]
_WANTED += ["merges.txt", "tokenizer.model", "special_tokens_map.json"]
TIMEOUT_SECONDS = 10


def load_from_hub(model_id: str, target: Target) -> Model:
    """A public model by its id, such as `HuggingFaceTB/SmolLM2-135M`; fetched once.

    Raises:
        UnknownModelError: no such id, or the hub cannot be reached.
    """
    if not re.fullmatch(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", model_id, re.ASCII):
        raise UnknownModelError(
            f"no model {model_id[:60]!r} on the hub: ids are written 'owner/name'"
        )
    target.progress(f"asking huggingface.co for {model_id}")
    folder = _fetched(model_id)
    # The import takes seconds: an unreachable hub should not cost them.
    from workbench.models.huggingface import load_folder

    return load_folder(folder, target, name=model_id)


def _fetched(model_id: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(model_id, allow_patterns=_WANTED, local_files_only=True))
        # One question with a time limit: a download would try an unreachable hub again and again.
        HfApi().model_info(model_id, timeout=TIMEOUT_SECONDS)
        return Path(snapshot_download(model_id, allow_patterns=_WANTED))
    except Exception as error:  # network, authorisation and absence come as many kinds
        raise UnknownModelError(
            f"hf:{model_id} was not found in the local cache, and the hub did not give it: "
            f"{first_line(error)}"
        ) from error
