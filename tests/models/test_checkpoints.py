"""Checkpoints of ours: what is saved comes back, whole files or none, and steps of training."""

import json

import pytest
import torch
from torch.testing import assert_close

from workbench.errors import CheckpointError, UnsupportedError
from workbench.models import load
from workbench.models.checkpoints import (
    checkpoint_steps,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from workbench.models.files import read_json
from workbench.writing import write_atomically

CASES = {
    "standard": {"order": "sfsf", "norm": "LN", "attn_bias": True, "mlp_bias": True},
    "tied": {"order": "sf", "tied_unembedding": True},
    "unequal heads": {"order": "ss", "head_sizes": ((4, 12), (20,))},
    "no positions": {"order": "s", "positions": "rotary", "n_kv_heads": 2},
    "empty": {"order": ""},
}
TOKENS = torch.arange(9)[None]


@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_comes_back(tmp_path, build, name):
    model = build(**CASES[name])
    again = load_checkpoint(save_checkpoint(model, tmp_path / "m"))
    assert again.cfg == model.cfg
    assert again.name == "m"
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(TOKENS), model(TOKENS))
    assert again.to_tokens("abc").tolist() == model.to_tokens("abc").tolist()


def test_half_precision_on_disk_comes_back_as_float32(tmp_path, model):
    save_checkpoint(model, tmp_path, dtype=torch.float16)
    again = load_checkpoint(tmp_path)
    assert again.W_E.dtype == torch.float32
    assert_close(again.W_E, model.W_E, rtol=1e-3, atol=1e-3)


def test_a_model_without_tokenizer_is_saved_without_one(tmp_path, build):
    model = build(order="s")
    model.tokenizer = None
    save_checkpoint(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert load_checkpoint(tmp_path).tokenizer is None


def test_steps_of_training_are_found_in_order(tmp_path, build):
    save_checkpoint(build(order="s"), tmp_path)
    for step in (1000, 0, 50):
        save_weights(
            build(order="s", seed=step), tmp_path / "checkpoints" / f"step-{step:06d}.safetensors"
        )
    for other in ("step-best.safetensors", "step-000051.tmp", "step-00000050.safetensors"):
        (tmp_path / "checkpoints" / other).write_bytes(b"")
    assert checkpoint_steps(tmp_path) == [0, 50, 1000]
    assert checkpoint_steps(tmp_path / "nowhere") == []
    expected = build(order="s", seed=50).W_E
    assert torch.equal(load_checkpoint(tmp_path, step=50).W_E, expected)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint of step 51: there are \[0, 50, 1000\]"
    ):
        load_checkpoint(tmp_path, step=51)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path, build):
    save_checkpoint(build(order="s", d_vocab=17), tmp_path)
    with pytest.raises(CheckpointError, match="token id 17, the model only ids below 17"):
        load_checkpoint(tmp_path)


def test_a_tokenizer_with_gaps_is_judged_by_its_largest_id(tmp_path, build):
    save_checkpoint(build(order="s"), tmp_path)
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 500}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    with pytest.raises(CheckpointError, match="token id 500, the model only ids below"):
        load_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "notes.json"
    write_atomically(file, '{"a": 1}')
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_saving_over_a_checkpoint_replaces_it(tmp_path, build):
    for seed in (0, 1):
        save_checkpoint(build(order="s", seed=seed), tmp_path)
    assert torch.equal(load_checkpoint(tmp_path).W_E, build(order="s", seed=1).W_E)
    assert json.loads((tmp_path / "config.json").read_text())["order"] == "s"


def test_steps_of_more_than_six_digits_are_found(tmp_path, build):
    model = build(order="s")
    save_checkpoint(model, tmp_path)
    for step in (1_500_000, 10_000_000):
        save_weights(model, tmp_path / "checkpoints" / f"step-{step}.safetensors")
    assert checkpoint_steps(tmp_path) == [1_500_000, 10_000_000]
    assert torch.equal(load_checkpoint(tmp_path, step=1_500_000).W_E, model.W_E)


def test_every_file_can_be_read_by_whoever_may_enter_the_folder(tmp_path, model):
    save_checkpoint(model, tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json"), 0o644)


def test_the_tokenizer_of_an_earlier_model_does_not_stay(tmp_path, build):
    model = build(order="s")
    save_checkpoint(model, tmp_path)
    model.tokenizer = None
    save_checkpoint(model, tmp_path)
    assert load_checkpoint(tmp_path).tokenizer is None


def test_a_model_of_another_kind_is_refused_before_anything_is_written(tmp_path, hf_folder):
    with pytest.raises(UnsupportedError, match="is a BridgeModel; only our own Transformer"):
        save_checkpoint(load(str(hf_folder("gpt2"))), tmp_path / "new")
    assert not (tmp_path / "new").exists()
