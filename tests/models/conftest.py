"""Tiny public models, saved as Hugging Face folders once per session."""

import pytest
from tiny import tiny_hf


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
