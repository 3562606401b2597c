"""The bundled held-out text, on which every card's losses are measured and can be measured again.

zoo/held_out.txt.gz: files of the Python standard library that neither the models nor the tokenizer have
seen (Corpus.held_out), PSF-2.0.
"""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import CheckpointError
from workbench.models.catalog import ZOO
from workbench.training.corpora import Corpus, read_text

HELD_OUT = ZOO / "held_out.txt.gz"
_MAX_BYTES = 8 << 20


def held_out_text(path: Path = HELD_OUT) -> str:
    """The text.

    Raises:
        CheckpointError: missing, broken or far larger than any that is bundled.
    """
    if not path.is_file():
        raise CheckpointError(f"no {path.name} in {path.parent}")
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise CheckpointError(f"{path} unpacks to over {_MAX_BYTES >> 20} MiB")
        return data.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a gzipped text: {error}") from error


def write_held_out(corpus: Corpus, path: Path = HELD_OUT, n_bytes: int = 600_000) -> list[str]:
    """Bundle about `n_bytes` of a corpus' held-out files; returns their names below its root."""
    chosen = list(_up_to(corpus, n_bytes))
    # Without a time stamp the same files give the same bytes.
    path.write_bytes(gzip.compress(read_text(chosen).encode(), mtime=0))
    return [file.relative_to(corpus.root).as_posix() for file in chosen]


def _up_to(corpus: Corpus, n_bytes: int) -> Iterator[Path]:
    """Held-out files in an order that has nothing to do with their content, up to a size."""

    def shuffled(file: Path) -> str:
        name = file.relative_to(corpus.root).as_posix()
        return hashlib.sha256(name.encode()).hexdigest()

    total = 0
    for file in sorted(corpus.held_out, key=shuffled):
        if total + file.stat().st_size <= n_bytes:
            total += file.stat().st_size
            yield file
