"""Handwritten digits: 8 × 8 images that come with scikit-learn, or MNIST from files on disk.

    digits()        1,797 images of 64 pixels; needs no file and no network
    mnist(folder)   60,000 + 10,000 images of 784 pixels, as published (LeCun et al. 1998), plain or .gz:
                    train-images-idx3-ubyte  train-labels-idx1-ubyte  t10k-images-…  t10k-labels-…

Ten outputs are to be 1 for the digit shown and 0 for the others: the loss is their mean squared error, as in
Liu, Gan, Tegmark 2023, "Seeing is Believing". Pixels are scaled to [0, 1]. A file is read only as far as its
header says, so a small one that unpacks to terabytes costs no memory.
"""

import gzip
import io
import math
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from workbench.errors import ConfigError
from workbench.training.tasks.batches import Labelled
from workbench.training.tasks.fixed import MAX_ROWS, FixedTask, check_rows

N_CLASSES = 10
MAX_PIXELS = 10_000
MAX_BYTES = 1_000_000_000
N_ROWS = 100
"""Rows of a batch, as published for MNIST."""
_UNSIGNED_BYTES = 0x08
_PARTS = {"train": "train", "test": "t10k"}


class OneHot(Labelled):
    """Images, and which of ten outputs is to be 1."""

    def loss(self, outputs: Float[Tensor, "batch label"]) -> Float[Tensor, ""]:
        """Mean squared error over rows and outputs."""
        wanted = F.one_hot(self.labels, outputs.shape[1])
        return F.mse_loss(outputs, wanted.to(outputs.dtype))

    def rows(self, chosen: Int[Tensor, " row"]) -> "OneHot":
        """Some of the rows."""
        return OneHot(self.inputs[chosen], self.labels[chosen])


def digits(*, share: float | int = 0.8, n_rows: int | None = N_ROWS, seed: int = 0) -> FixedTask:
    """The images of scikit-learn (Alpaydin and Kaynak 1998), some of them held out.

    Args:
        share: of the images that is trained on.
        n_rows: of a batch; None = all.

    Raises:
        ConfigError: numbers that cannot be meant.
    """
    # Imported here because it takes a second, and most tasks do without.
    from sklearn.datasets import load_digits

    if not 0 < share < 1:
        raise ConfigError(f"share must be a number between 0 and 1, not {share}")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    n_train = round(share * len(labels))
    check_rows(n_train, len(labels) - n_train)
    pixels = torch.from_numpy(images[order] / 16).float()
    shown = torch.from_numpy(labels[order]).long()
    train, test = (
        OneHot(pixels[:n_train], shown[:n_train]),
        OneHot(pixels[n_train:], shown[n_train:]),
    )
    return FixedTask("digits", train, test, n_rows)


def mnist(folder: str | Path, *, n_rows: int | None = N_ROWS) -> FixedTask:
    """MNIST, or any ten classes of images in its format, from the four files in a folder.

    Raises:
        ConfigError: a file is missing, broken or of another kind, or the files do not belong together.
    """
    folder = Path(folder)
    found = {part: _part(folder, prefix) for part, prefix in _PARTS.items()}
    widths = {part: examples.inputs.shape[1] for part, examples in found.items()}
    if widths["train"] != widths["test"]:
        raise ConfigError(f"{folder}: the images for training and test differ in size: {widths}")
    return FixedTask("MNIST", found["train"], found["test"], n_rows)


def read_idx(path: str | Path) -> UInt8[np.ndarray, "..."]:
    """An array of unsigned bytes in the idx format, gzipped or not.

    Raises:
        ConfigError: no such file, or one that is broken, too large, or of another kind.
    """
    path = Path(path)
    try:
        # Opened without waiting: a named pipe would keep an ordinary open waiting for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(f"{path} is not a file")
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return _array(path, gzip.GzipFile(fileobj=file) if is_packed else file)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _array(path: Path, file: io.BufferedIOBase) -> UInt8[np.ndarray, "..."]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTES or not 1 <= head[3] <= 3:
        raise ConfigError(
            f"{path} is not an idx file of unsigned bytes in 1 to 3 dimensions: it begins with "
            f"{head.hex(' ') or 'nothing'}, not with 00 00 08 and 01, 02 or 03"
        )
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise ConfigError(f"{path} ends within its header")
    shape = struct.unpack(f">{head[3]}I", sizes)
    n_bytes = math.prod(shape)
    if shape[0] > MAX_ROWS or math.prod(shape[1:]) > MAX_PIXELS or n_bytes > MAX_BYTES:
        raise ConfigError(
            f"{path} says that it holds {' × '.join(f'{n:,}' for n in shape)} bytes; read are up to "
            f"{MAX_ROWS:,} images of {MAX_PIXELS:,} pixels, {MAX_BYTES:,} bytes in all"
        )
    held = file.read(n_bytes + 1)
    if len(held) != n_bytes:
        than = "more" if len(held) > n_bytes else f"{len(held):,}, fewer"
        raise ConfigError(f"{path} holds {than} than the {n_bytes:,} bytes that its header says")
    return np.frombuffer(held, dtype=np.uint8).reshape(shape)


def _part(folder: Path, prefix: str) -> OneHot:
    images = read_idx(image_path := _found(folder, f"{prefix}-images", 3))
    labels = read_idx(label_path := _found(folder, f"{prefix}-labels", 1))
    if images.ndim != 3 or labels.ndim != 1:
        raise ConfigError(
            f"{image_path} and {label_path} must have 3 dimensions and 1, not {images.ndim} and {labels.ndim}"
        )
    if len(images) != len(labels):
        raise ConfigError(
            f"{len(images):,} images in {image_path}, {len(labels):,} labels in {label_path}"
        )
    if not images.size:
        raise ConfigError(f"{image_path} holds no pixels")
    if (largest := int(labels.max())) >= N_CLASSES:
        raise ConfigError(f"{label_path} holds the label {largest}; there are 0 to {N_CLASSES - 1}")
    pixels = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)
    return OneHot(pixels, torch.from_numpy(labels.astype(np.int64)))


def _found(folder: Path, stem: str, n_dims: int) -> Path:
    names = [f"{stem}{dot}idx{n_dims}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise ConfigError(
        f"{folder} has no {names[0]} (or {names[1]}): give the folder of the four MNIST files"
    )
