"""Text of the user's own: the files of a folder, encoded once and kept as they were when the run began.

The last twentieth of every file is held out. A byte-level BPE is trained on the rest. Files may be changed or
gone when the run goes on: what was made of them stands in the run's folder.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workbench.cache import cache_root
from workbench.errors import CheckpointError, ConfigError
from workbench.models.tokenizer import Tokenizer
from workbench.training.corpora import EncodedText, encoded, trained_bpe
from workbench.writing import whole_file, write_atomically

MAX_BYTES, MAX_FILES = 64 << 20, 10_000
SHARE_HELD_OUT = 0.05
TEXT_FOLDER = "text"
_PARTS = ("train", "held_out")


def encoded_folder(folder: Path, d_vocab: int, store: Path | None = None) -> EncodedText:
    """The text of a folder (or of one file) as tokens.

    Args:
        store: where the tokens are kept, and found again by a later call; None = in the cache, under a name
            that changes with the text.

    Raises:
        ConfigError: no such folder, no text in it, too much of it, or too little for such a vocabulary.
        CheckpointError: what was kept is broken.
    """
    if store is not None and (kept := store / TEXT_FOLDER / "tokenizer.json").is_file():
        return _kept(kept.parent)
    texts = read_texts(folder)
    if store is None:
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
        place = cache_root() / f"own-{digest}-{d_vocab}"
    else:
        place = store / TEXT_FOLDER
    if not (place / "tokenizer.json").is_file():
        _keep(place, texts, d_vocab)
    return _kept(place)


def read_texts(folder: Path) -> list[str]:
    """The text files of a folder, in the order of their names; hidden files and links are left out.

    Raises:
        ConfigError: no such folder, no text in it, or too much.
    """
    if not folder.exists():
        raise ConfigError(f"no folder {str(folder)!r:.200}: give one that holds text files")
    texts, total = [], 0
    for number, path in enumerate(_files(folder)):
        data = _read(path, MAX_BYTES + 1 - total)
        total += len(data)
        if total > MAX_BYTES or number >= MAX_FILES:
            raise ConfigError(
                f"{folder} holds over {MAX_BYTES >> 20} MiB or {MAX_FILES:,} files: give a smaller folder"
            )
        if b"\0" not in data and (text := data.decode("utf-8", errors="replace")).strip():
            texts.append(text)
    if not texts:
        raise ConfigError(f"{folder} holds no text: no file in it is one, or all are empty")
    return texts


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where) / name
            if not name.startswith(".") and not path.is_symlink():
                yield path


def _read(path: Path, limit: int) -> bytes:
    """A regular file's bytes, up to a limit.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        # Opened without waiting: a named pipe would keep an ordinary open waiting for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            return file.read(limit) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _keep(place: Path, texts: list[str], d_vocab: int) -> None:
    cuts = [round(len(text) * (1 - SHARE_HELD_OUT)) for text in texts]
    both = {
        "train": "\n".join(text[:cut] for text, cut in zip(texts, cuts, strict=True)),
        "held_out": "\n".join(text[cut:] for text, cut in zip(texts, cuts, strict=True)),
    }
    tokenizer = trained_bpe([both["train"]], d_vocab)
    for part in _PARTS:
        if not both[part].strip():
            raise ConfigError(f"the text is too short: nothing of it is left for {part}")
        with whole_file(place / f"{part}.npy") as scratch, scratch.open("wb") as file:
            np.save(file, encoded(tokenizer, both[part]))
    # Last: a folder with a tokenizer is taken for complete.
    write_atomically(place / "tokenizer.json", tokenizer.backend.to_str(pretty=True))


def _kept(place: Path) -> EncodedText:
    try:
        arrays = [np.load(place / f"{part}.npy", allow_pickle=False) for part in _PARTS]
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{place} is broken ({error}): delete it") from error
    if any(array.ndim != 1 or array.dtype != np.uint16 for array in arrays):
        raise CheckpointError(f"{place} is broken: its arrays are no tokens; delete it")
    return EncodedText(Tokenizer.from_file(place / "tokenizer.json"), *arrays)
