"""Text to train on that every machine has: the source of Python's own standard library.

Byte-level BPE is trained on the training files alone; `<|bos|>` is token 0 and starts every prompt.
The encoded text is cached outside the repository, under a name that changes with any of its files.
"""

import hashlib
import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from workbench.cache import cache_root
from workbench.errors import CheckpointError, ConfigError
from workbench.models.tokenizer import Tokenizer
from workbench.writing import write_atomically

BOS = "<|bos|>"
LICENCE = "PSF-2.0"
_EXCLUDED = {"site-packages", "dist-packages", "encodings", "__pycache__"}
_MAX_NON_ASCII = 0.02
_MIN_BYTES = 1_000_000


@dataclass(frozen=True)
class Corpus:
    """Source files under one root; about one in twenty is held out, chosen by the hash of its path."""

    root: Path
    files: tuple[Path, ...]

    @cached_property
    def train(self) -> tuple[Path, ...]:
        """The files to train on."""
        return tuple(path for path in self.files if not self.is_held_out(path))

    @cached_property
    def held_out(self) -> tuple[Path, ...]:
        """The files that no model and no tokenizer of ours has seen."""
        return tuple(path for path in self.files if self.is_held_out(path))

    def is_held_out(self, path: Path) -> bool:
        """Whether the md5 of the path below the root is divisible by 20."""
        name = path.relative_to(self.root).as_posix()
        return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 20 == 0

    def fingerprint(self) -> str:
        """Changes with the name or content of any file."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(path.relative_to(self.root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:16]


def standard_library(root: Path | None = None) -> Corpus:
    """The Python files of this interpreter's standard library that are essentially ASCII.

    Raises:
        ConfigError: no such folder, or one that holds too little source.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    if not root.is_dir():
        raise ConfigError(f"no folder {root}: give the folder of a Python standard library")
    candidates = sorted(path for path in root.rglob("*.py") if path.is_file())
    wanted = [path for path in candidates if not _EXCLUDED & set(path.relative_to(root).parts)]
    files = tuple(path for path in wanted if _is_mostly_ascii(path.read_bytes()))
    n_bytes = sum(path.stat().st_size for path in files)
    if n_bytes < _MIN_BYTES:
        raise ConfigError(
            f"{root} holds {n_bytes:,} bytes of Python source, too few to train on "
            f"(at least {_MIN_BYTES:,}): some distributions ship the library compiled or zipped"
        )
    return Corpus(root, files)


def _is_mostly_ascii(data: bytes) -> bool:
    return bool(data) and sum(byte > 127 for byte in data) <= _MAX_NON_ASCII * len(data)


def read_text(paths: Iterable[Path]) -> str:
    """The files one after another."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def trained_bpe(texts: Iterable[str], d_vocab: int) -> Tokenizer:
    """A byte-level BPE of exactly `d_vocab` tokens, `<|bos|>` = 0 among them, set before every prompt.

    Raises:
        ConfigError: fewer tokens than bytes, or too little text for so many.
    """
    if d_vocab < 257:
        raise ConfigError(f"d_vocab must be at least 257 (256 bytes and {BOS}), not {d_vocab}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        special_tokens=[BOS],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() < d_vocab:
        found = backend.get_vocab_size()
        raise ConfigError(f"the text has {found} distinct pieces, fewer than d_vocab = {d_vocab}")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return Tokenizer(backend, "bpe")


@dataclass(frozen=True)
class EncodedText:
    """A tokenizer and the text it was trained on, as tokens."""

    tokenizer: Tokenizer
    train: np.ndarray
    held_out: np.ndarray


def encoded(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The tokens of a text without BOS, `[token]` uint16."""
    # In pieces of whole lines: the Rust encoder's offsets of 30 MB would take gigabytes.
    lines = text.splitlines(keepends=True)
    pieces = ["".join(lines[start : start + 4000]) for start in range(0, len(lines), 4000)]
    rows = tokenizer.backend.encode_batch_fast(pieces, add_special_tokens=False)
    return np.concatenate([np.array(row.ids, dtype=np.uint16) for row in rows])


def encoded_corpus(corpus: Corpus, d_vocab: int, cache: Path | None = None) -> EncodedText:
    """Tokenizer and tokens of a corpus; the first call takes about half a minute, later ones read a cache.

    Raises:
        ConfigError: a vocabulary that does not fit into uint16.
    """
    if d_vocab > 1 << 16:
        raise ConfigError(f"d_vocab must be at most {1 << 16}, not {d_vocab}")
    folder = (cache or cache_root()) / f"python-{corpus.fingerprint()}-{d_vocab}"
    if not (folder / "tokenizer.json").is_file():
        _encode_into(folder, corpus, d_vocab)
    try:
        arrays = [np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("train", "held_out")]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is broken ({error}): delete it") from error
    return EncodedText(Tokenizer.from_file(folder / "tokenizer.json"), *arrays)


def _encode_into(folder: Path, corpus: Corpus, d_vocab: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train, held_out = read_text(corpus.train), read_text(corpus.held_out)
    tokenizer = trained_bpe([train], d_vocab)
    for part, text in (("train", train), ("held_out", held_out)):
        scratch = folder / f".{part}-{os.getpid()}.npy"
        np.save(scratch, encoded(tokenizer, text))
        scratch.replace(folder / f"{part}.npy")
    # Last: a folder with a tokenizer is taken for complete.
    write_atomically(folder / "tokenizer.json", tokenizer.backend.to_str(pretty=True))
