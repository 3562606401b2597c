"""Digits: those of scikit-learn, and MNIST files that are whole, broken or hostile."""

import gzip
import os
import struct

import numpy as np
import pytest
import torch
from idx_files import NAMES, idx

from workbench.errors import ConfigError
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.reports import constant_loss
from workbench.training.tasks.digits import OneHot, digits, mnist, read_idx


def images(n, side=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side))


def labels(n):
    return np.arange(n) % 10


def files():
    """The four files of a small data set, by the start of their names."""
    return {
        "train-images": idx(images(12)),
        "train-labels": idx(labels(12)),
        "t10k-images": idx(images(5, seed=1)),
        "t10k-labels": idx(labels(5)),
    }


def write(folder, held, *, packed=()):
    for name, data in held.items():
        path = folder / NAMES[name]
        if name in packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
        else:
            path.write_bytes(data)
    return folder


def test_every_image_is_on_one_side_and_pixels_are_shares():
    task = digits()
    assert (len(task.train.inputs), len(task.test.inputs)) == (1438, 359)
    both = torch.cat([task.train.inputs, task.test.inputs])
    assert both.shape[1] == 64 and both.min() == 0 and both.max() == 1
    counts = torch.bincount(torch.cat([task.train.labels, task.test.labels]))
    # As described by scikit-learn.
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.equal(digits().train.inputs, task.train.inputs)
    assert not torch.equal(digits(seed=1).train.inputs, task.train.inputs)


def test_a_batch_keeps_images_and_labels_together():
    task = digits(n_rows=30)
    batch = task.batch(0, 7)
    assert isinstance(batch, OneHot) and batch.inputs.shape == (30, 64)
    known = {
        tuple(x.tolist()): int(y) for x, y in zip(task.train.inputs, task.train.labels, strict=True)
    }
    assert all(
        known[tuple(x.tolist())] == y for x, y in zip(batch.inputs, batch.labels, strict=True)
    )


def test_the_loss_is_the_mean_square_from_one_hot():
    examples = OneHot(torch.zeros(3, 64), torch.tensor([0, 2, 9]))
    outputs = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    slow = sum(
        (float(outputs[i, j]) - (j == label)) ** 2
        for i, label in enumerate((0, 2, 9))
        for j in range(10)
    )
    assert float(examples.loss(outputs)) == pytest.approx(slow / 30, rel=1e-5)
    right = torch.nn.functional.one_hot(examples.labels, 10).float()
    assert float(examples.loss(right)) == 0 and examples.scores(right) == {"accuracy": 1.0}


def test_the_best_constant_answer_is_the_share_of_each_class():
    task = digits()
    share = torch.bincount(task.train.labels) / len(task.train.labels)
    assert constant_loss(task.train) == pytest.approx(float((share * (1 - share)).mean()), rel=1e-5)
    for nudge in (-0.01, 0.01):
        other = (share + nudge).expand(len(task.train.labels), -1)
        assert float(task.train.loss(other)) > constant_loss(task.train)


@pytest.mark.parametrize("share", [0, 1, -1, float("nan"), 0.0001])
def test_a_split_that_cannot_be_meant_is_refused(share):
    with pytest.raises(ConfigError):
        digits(share=share)


# --- MNIST -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [(), tuple(NAMES), ("train-images", "t10k-labels")])
def test_files_are_read_plain_or_gzipped(tmp_path, packed):
    task = mnist(write(tmp_path, files(), packed=packed), n_rows=4)
    np.testing.assert_allclose(
        task.train.inputs.numpy() * 255, images(12).reshape(12, 16), rtol=1e-6
    )
    assert task.test.labels.tolist() == [0, 1, 2, 3, 4]
    measured = task.measure(MLP(MLPConfig(widths=(16, 4, 10))))
    assert set(measured) == {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}


def test_names_with_a_dot_are_known_too(tmp_path):
    for name, data in files().items():
        (tmp_path / NAMES[name].replace("-idx", ".idx")).write_bytes(data)
    assert len(mnist(tmp_path, n_rows=4).train.labels) == 12


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images", b"", "begins with nothing"),
        ("train-images", b"<html>no such page</html>", "not an idx file"),
        ("train-images", idx(images(12), code=0x0D), "not an idx file of unsigned bytes"),
        ("train-images", idx(images(12))[:10], "ends within its header"),
        ("train-images", idx(images(12))[:-1], "191, fewer than the 192 bytes"),
        ("train-images", idx(images(12)) + b"x", "more than the 192 bytes"),
        ("train-images", idx(labels(12)), "must have 3 dimensions and 1"),
        ("train-images", idx(images(11)), "11 images"),
        ("train-images", idx(images(12, side=5)), "differ in size"),
        ("train-images", idx(images(0)), "holds no pixels|0 images"),
        ("train-images", gzip.compress(idx(images(12)))[:-30], "cannot be read"),
        ("train-images", b"\x1f\x8bnot gzip at all", "cannot be read"),
        ("train-labels", idx(np.full(12, 10)), "the label 10"),
        (
            "train-images",
            b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1),
            "says that it holds",
        ),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, name, data, message):
    write(tmp_path, files() | {name: data})
    with pytest.raises(ConfigError, match=message):
        mnist(tmp_path, n_rows=4)


def test_a_file_that_unpacks_without_end_is_read_as_far_as_its_header_says(tmp_path):
    bomb = idx(images(12)) + bytes(50_000_000)
    write(tmp_path, files() | {"train-images": bomb}, packed=("train-images",))
    assert (tmp_path / "train-images-idx3-ubyte.gz").stat().st_size < 100_000
    with pytest.raises(ConfigError, match="more than the 192 bytes"):
        mnist(tmp_path)


def test_what_is_no_file_is_refused_and_nothing_waits(tmp_path):
    with pytest.raises(ConfigError, match="has no train-images-idx3-ubyte"):
        mnist(tmp_path)
    with pytest.raises(ConfigError, match="has no train-images"):
        mnist(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"not a file|cannot be read"):
        read_idx(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a file"):
        read_idx(tmp_path / "pipe")
