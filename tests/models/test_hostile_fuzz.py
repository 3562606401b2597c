"""Random damage to names, configs and files: a model comes out, or a named error, and nothing else."""

import contextlib
import struct

import pytest
import torch
from gpt_sources import source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import change_config

from workbench.errors import WorkbenchError
from workbench.models import list_models, load

CONFIG_KEYS = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim"]
CONFIG_KEYS += ["num_key_value_heads", "intermediate_size", "max_position_embeddings", "hidden_act"]
CONFIG_KEYS += [
    "rms_norm_eps",
    "rope_parameters",
    "rope_theta",
    "rope_scaling",
    "tie_word_embeddings",
]
CONFIG_KEYS += [
    "attention_bias",
    "mlp_bias",
    "architectures",
    "dtype",
    "torch_dtype",
    "layer_types",
]
CONFIG_KEYS += ["use_cache", "pad_token_id", "transformers_version", "_attn_implementation"]
CONFIG_KEYS += ["attention_dropout", "auto_map", "id2label", "_name_or_path"]

NAMES = {info.name for info in list_models()}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(CONFIG_KEYS),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=2)
        ),
        max_leaves=4,
    ),
)
def test_any_value_in_a_foreign_config_is_a_model_or_a_named_error(theirs, key, value):
    whole = (theirs / "config.json").read_text()
    change_config(theirs, **{key: value})
    try:
        model = load(str(theirs))
    except WorkbenchError:
        return
    finally:
        (theirs / "config.json").write_text(whole)
    assert model.certificate.max_logit_error < 1e-3


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.text(max_size=60))
def test_any_text_is_a_model_or_a_named_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Hypothesis draws some texts from the code that it tests, names of models among them.
    if not name.startswith("hf:") and name not in NAMES:
        with pytest.raises(WorkbenchError):
            load(name)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_a_flipped_byte_is_a_model_or_a_named_error(ours, position, value):
    file = ours / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    broken = bytearray(whole)
    broken[position % header] = value
    file.write_bytes(broken)
    with contextlib.suppress(WorkbenchError):
        load(str(ours))
    file.write_bytes(whole)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 1 << 30), value=st.integers(0, 255))
def test_a_flipped_byte_in_a_torch_file_is_a_model_or_a_named_error(
    tmp_path, form, position, value
):
    file = tmp_path / "m.pt"
    if not file.exists():
        torch.save(
            source("mingpt").state_dict(), file, _use_new_zipfile_serialization=form == "zip"
        )
        (tmp_path / "whole").write_bytes(file.read_bytes())
        (tmp_path / "m.json").write_text('{"n_head": 3}')
    broken = bytearray((tmp_path / "whole").read_bytes())
    # Half of the flips fall into the pickle and the directory rather than into the numbers.
    within = len(broken) if position % 2 else 2_000
    broken[-1 - position % within if position % 3 else position % within] = value
    file.write_bytes(broken)
    with contextlib.suppress(WorkbenchError):
        load(str(file))
