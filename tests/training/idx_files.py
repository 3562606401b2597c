"""Image files in the idx format, as small as a test needs them."""

import struct

import numpy as np

NAMES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "t10k-images": "t10k-images-idx3-ubyte",
    "t10k-labels": "t10k-labels-idx1-ubyte",
}


def idx(array, *, code=0x08):
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_digits(folder, *, n_train=120, n_test=8, side=28):
    """The four files of MNIST with other contents; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", n_train), ("t10k", n_test)):
        pixels = np.arange(n * side * side).reshape(n, side, side) % 251
        (folder / NAMES[f"{part}-images"]).write_bytes(idx(pixels))
        (folder / NAMES[f"{part}-labels"]).write_bytes(idx(np.arange(n) % 10))
    return folder
