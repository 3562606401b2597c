"""Which models a batch's words stand for, and hashes of their files."""

import shutil
import subprocess
import sys

import pytest

from probes.facts import facts_of
from probes.registry import PROBES, get_probe, named_probes, probe_names
from probes.sources import load_source, read_sources
from workbench.errors import CheckpointError, ConfigError, UnknownModelError


def labels(*specs):
    return [source.label for source in read_sources(specs)]


def test_words_stand_for_models(model_folders):
    assert labels("attn-2l", "attn-2l@500") == ["attn-2l", "attn-2l@500"]
    every = labels("attn-2l@*")
    assert every[0] == "attn-2l@0" and every[-1] == "attn-2l" and "attn-2l@500" in every
    assert labels(f"{model_folders}/*/") == ["encoder", "first", "mlp", "second"]
    assert labels(str(model_folders / "first"), "attn-2l", "attn-2l") == ["first", "attn-2l"]


def test_two_folders_of_one_name_are_told_apart(model_folders, tmp_path):
    shutil.copytree(model_folders / "first", tmp_path / "first")
    one, other = read_sources([str(model_folders / "first"), str(tmp_path / "first")])
    assert one.label != other.label and one.hash == other.hash


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nope", UnknownModelError, "no model 'nope'"),
        ("", UnknownModelError, "no model"),
        ("attn-2l@7", CheckpointError, "no checkpoint '7': there are 0, 250"),
        ("attn-2l@", CheckpointError, "no checkpoint ''"),
        ("attn-2l@²", CheckpointError, "no checkpoint '²'"),
        ("attn-1l@*", CheckpointError, "keeps no checkpoints"),
        ("smollm2@5", CheckpointError, "no checkpoint '5': there are none"),
        ("nowhere/*", UnknownModelError, "no model folder fits"),
        ("a**b/*", UnknownModelError, "no model folder fits|no pattern"),
        ("hf:gpt2", UnknownModelError, "no model"),
    ],
)
def test_words_that_stand_for_nothing_are_refused(spec, error, message):
    with pytest.raises(error, match=message):
        read_sources([spec])


def test_no_words_at_all_are_refused():
    with pytest.raises(UnknownModelError, match="no models"):
        read_sources([])


def test_the_hash_changes_with_the_model_and_with_nothing_beside_it(model_folders, tmp_path):
    folder = shutil.copytree(model_folders / "first", tmp_path / "elsewhere")
    before = load_source(str(folder)).hash
    assert before == load_source(str(model_folders / "first")).hash
    (folder / "metrics.jsonl").write_text("{}")
    (folder / "card.json").write_text("{}")
    assert load_source(str(folder)).hash == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert load_source(str(folder)).hash != before


def test_every_checkpoint_has_a_hash_of_its_own_and_the_last_that_of_the_model():
    """The bundled model is its checkpoint of step 3000, byte for byte."""
    *checkpoints, final = [source.hash for source in read_sources(["attn-2l@*"])]
    assert len(set(checkpoints)) == len(checkpoints) and checkpoints[-1] == final


def test_a_step_is_the_model_of_that_step(attn_2l):
    early = load_source("attn-2l@0").load()
    assert not (early.W_E == attn_2l.W_E).all()


def test_the_shape_is_known_without_the_weights(model_folders, model):
    for source in read_sources([f"{model_folders}/*/", "attn-2l"]):
        assert source.facts() == facts_of(source.load())


def test_hashes_need_no_torch(model_folders):
    code = (
        "import sys; from probes.sources import read_sources;"
        f"print([s.hash for s in read_sources(['attn-2l@*', {str(model_folders / 'mlp')!r}])]);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_probe_is_named_by_its_file():
    for name, module in zip(probe_names(), PROBES, strict=True):
        probe = get_probe(name)
        assert probe.name == name == module.removeprefix("probes.").replace("_", "-")
        assert type(probe).__module__ == module


def test_probes_come_in_the_order_of_the_report():
    assert [probe.name for probe in named_probes("all")] == list(probe_names())
    assert [probe.name for probe in named_probes(" residual-norms , residual-norms")] == [
        "residual-norms"
    ]
    with pytest.raises(ConfigError, match="Did you mean 'residual-norms'"):
        named_probes("residual-norm")
    with pytest.raises(ConfigError, match="no probes"):
        named_probes(",")
