"""Tiny public models, saved as Hugging Face folders once per session."""

import pytest
from tiny import tiny_hf

from workbench.models.checkpoints import save_checkpoint
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory):
    """A function from a name of TINY to a folder that `save_pretrained` wrote."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("hf") / name
            tiny_hf(name).save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture
def ours(tmp_path):
    """A folder of ours that a test may break."""
    config = TransformerConfig(order="sf", d_model=16, n_heads=2, d_vocab=18, n_ctx=12)
    return save_checkpoint(Transformer(config), tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path, hf_folder):
    """A copy of a tiny Llama folder that a test may break."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for file in hf_folder("llama").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
