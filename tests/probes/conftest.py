"""Tiny models in folders, and documents that they can read."""

import numpy as np
import pytest

from probes.data import ProbeData
from workbench.models.checkpoints import save_checkpoint
from workbench.training.mlp import MLP, MLPConfig, save_mlp

LETTERS = "abcdefghijklmnop"


def letter_documents(count=8, length=120, seed=0):
    """Documents of random letters, as the models over letters read them."""
    rng = np.random.default_rng(seed)
    return tuple("".join(rng.choice(list(LETTERS), size=length)) for _ in range(count))


@pytest.fixture(scope="session")
def letter_data():
    return ProbeData(letter_documents(), "letters")


@pytest.fixture(scope="session")
def model_folders(build, tmp_path_factory):
    """Two transformers over letters, an encoder and a multilayer perceptron, by name."""
    root = tmp_path_factory.mktemp("models")
    save_checkpoint(build(seed=1), root / "first")
    save_checkpoint(build(seed=2, order="sfsf", norm="LN"), root / "second")
    save_checkpoint(build(seed=3, order="sf", norm="LN", causal=False), root / "encoder")
    save_mlp(MLP(MLPConfig(widths=(4, 6, 2)), name="mlp"), root / "mlp")
    return root
