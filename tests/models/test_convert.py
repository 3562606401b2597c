"""nanoGPT and minGPT checkpoints, from models written here in those projects' own words."""

import json

import pytest
import torch
from gpt_sources import SOURCES, source
from safetensors.torch import save_file
from torch.testing import assert_close

from workbench.errors import CheckpointError
from workbench.models import load
from workbench.models.convert import from_gpt_state

TOKENS = torch.randint(0, 40, (2, 11), generator=torch.Generator().manual_seed(4))
HEADS = {"n_head": 3}


def untied(state):
    """Without shared memory and non-weights, as safetensors asks."""
    return {key: tensor.clone().contiguous() for key, tensor in state.items()}


@pytest.mark.parametrize("name", SOURCES)
def test_logits_are_those_of_the_source(name):
    model = source(name)
    found = from_gpt_state(model.state_dict(), 3)
    with torch.no_grad():
        assert_close(found(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)
    assert found.certificate.max_logit_error < 1e-4
    assert (
        "forward pass of " + ("nanoGPT" if "nano" in name else "minGPT") in found.certificate.source
    )


@pytest.mark.parametrize("name", SOURCES)
def test_reads_safetensors_with_a_sidecar(tmp_path, name):
    model = source(name)
    save_file(untied(model.state_dict()), tmp_path / "gpt.safetensors")
    (tmp_path / "gpt.json").write_text(json.dumps(HEADS))
    found = load(str(tmp_path / "gpt.safetensors"))
    assert found.name == "gpt"
    with torch.no_grad():
        assert_close(found(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


def test_reads_a_training_checkpoint_of_nanogpt_as_torch_saved_it(tmp_path):
    model = source("nanogpt")
    state = {"_orig_mod." + key: value for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters())
    model(TOKENS).sum().backward()
    optimizer.step()
    model = source("nanogpt")
    args = {"n_layer": 2, "n_head": 3, "n_embd": 24, "block_size": 16, "bias": True, "dropout": 0.0}
    whole = {"model": state, "optimizer": optimizer.state_dict(), "model_args": args, "iter_num": 5}
    state.update({"_orig_mod." + key: value for key, value in model.state_dict().items()})
    torch.save(whole, tmp_path / "ckpt.pt")
    with torch.no_grad():
        assert_close(load(str(tmp_path / "ckpt.pt"))(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


def test_float64_and_half_precision_can_be_asked_for(tmp_path):
    torch.save(source("mingpt").half().state_dict(), tmp_path / "model.bin")
    (tmp_path / "config.json").write_text(json.dumps(HEADS))
    model = load(str(tmp_path / "model.bin"), dtype="float64")
    assert model(TOKENS).dtype == torch.float64


def test_nanogpt_is_told_from_mingpt_by_its_tied_unembedding():
    assert from_gpt_state(source("nanogpt").state_dict(), 3).cfg.mlp == "gelu"
    assert from_gpt_state(source("mingpt").state_dict(), 3).cfg.mlp == "gelu_new"
    early = from_gpt_state(source("nanogpt").state_dict(), 3, activation="gelu_new")
    assert early.cfg.mlp == "gelu_new"


def test_the_number_of_heads_is_asked_for_and_never_guessed(tmp_path):
    torch.save(source("mingpt").state_dict(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r'write \{"n_head": 6\}.* into model.json'):
        load(str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    "facts", [{"n_head": "3"}, {"n_head": None}, {"n_head": 3, "activation": []}]
)
def test_a_sidecar_of_the_wrong_types_is_refused(tmp_path, facts):
    torch.save(source("mingpt").state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"n_head|activation"):
        load(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("heads", [0, -3, 5, True, 10**12])
def test_an_impossible_number_of_heads_is_refused(heads):
    with pytest.raises(CheckpointError):
        from_gpt_state(source("mingpt").state_dict(), heads)


def test_an_unknown_activation_is_refused():
    with pytest.raises(CheckpointError, match="mlp must be one of"):
        from_gpt_state(source("mingpt").state_dict(), 3, activation="mish")


@pytest.mark.parametrize("name", SOURCES)
def test_a_changed_state_dict_is_refused(name):
    for change in (missing, extra, misshapen, not_finite, whole_numbers, missing_block):
        state = dict(source(name).state_dict())
        change(state)
        with pytest.raises(CheckpointError):
            from_gpt_state(state, 3)


def an_mlp(state):
    return next(key for key in state if "mlp" in key and key.endswith("weight"))


def missing(state):
    del state[an_mlp(state)]


def extra(state):
    state["transformer.adapter.weight"] = torch.zeros(2)


def misshapen(state):
    state[an_mlp(state)] = state[an_mlp(state)][:, 1:]


def not_finite(state):
    state[an_mlp(state)] = state[an_mlp(state)] * torch.nan


def whole_numbers(state):
    state[an_mlp(state)] = state[an_mlp(state)].long()


def missing_block(state):
    for key in [key for key in state if ".0." in key]:
        del state[key]


def test_other_state_dicts_are_refused_by_their_first_names():
    with pytest.raises(CheckpointError, match=r"neither a nanoGPT nor a minGPT.*conv1\.weight"):
        from_gpt_state({"conv1.weight": torch.zeros(2, 2)}, 3)
    with pytest.raises(CheckpointError, match="none"):
        from_gpt_state({}, 3)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    save_file(untied(source("mingpt").state_dict()), tmp_path / "gpt.safetensors")
    (tmp_path / "gpt.json").write_text(json.dumps(HEADS))
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 500}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    with pytest.raises(CheckpointError, match="token id 500, the model only ids below 40"):
        load(str(tmp_path / "gpt.safetensors"))
