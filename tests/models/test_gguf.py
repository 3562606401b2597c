"""GGUF files: a tiny Llama written as llama.cpp writes it must come back as the model it was."""

import json

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from tiny import tiny_hf
from torch.testing import assert_close

from workbench.errors import CheckpointError, UnsupportedError
from workbench.models import load

TOKENS = torch.randint(0, 60, (2, 9), generator=torch.Generator().manual_seed(5))
_RENAMED = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers.": "blk.",
}


def interleaved(weight, n_heads):
    """llama.cpp turns neighbouring dimensions of a head, transformers the two halves."""
    rows = weight.shape[0]
    return weight.view(n_heads, 2, rows // n_heads // 2, -1).transpose(1, 2).reshape(rows, -1)


def write_gguf(path, architecture="llama"):
    model = tiny_hf("llama")
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    letters = [chr(code) for code in range(ord("A"), ord("A") + 57)]
    writer.add_token_list([*letters, "ab", "cd", "<|endoftext|>"])
    writer.add_token_types([1] * 59 + [3])
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(59)
    writer.add_bos_token_id(59)
    for key, weight in model.state_dict().items():
        for theirs, ours in _RENAMED.items():
            key = key.replace(theirs, ours)
        if "attn_q" in key or "attn_k" in key:
            weight = interleaved(weight, 4 if "attn_q" in key else 2)
        writer.add_tensor(key, weight.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "interp-workbench" / "gguf"


def test_comes_back_as_the_model_it_was_and_is_unpacked_once(tmp_path, cache):
    expected = write_gguf(tmp_path / "tiny.gguf")
    lines = []
    model = load(str(tmp_path / "tiny.gguf"), progress=lines.append)
    with torch.no_grad():
        assert_close(model(TOKENS), expected(TOKENS).logits, rtol=1e-4, atol=1e-5)
    assert model.name == "tiny"
    assert model.tokenizer.str_tokens(model.to_tokens("abcdB")[0].tolist()) == ["ab", "cd", "B"]
    assert any("unpacking tiny.gguf" in line for line in lines)
    assert [path.suffix for path in cache.iterdir()] == [""]
    again = []
    load(str(tmp_path / "tiny.gguf"), progress=again.append)
    assert not any("unpacking" in line for line in again)


def test_another_file_of_the_same_name_is_another_model(tmp_path, cache):
    write_gguf(tmp_path / "tiny.gguf")
    load(str(tmp_path / "tiny.gguf"))
    changed = bytearray((tmp_path / "tiny.gguf").read_bytes())
    changed[-40] ^= 1
    (tmp_path / "tiny.gguf").write_bytes(changed)
    load(str(tmp_path / "tiny.gguf"))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("keep", [0, 3, 4, 24, 600, -100])
def test_a_truncated_file_is_refused_and_leaves_nothing_behind(tmp_path, cache, keep):
    write_gguf(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        load(str(tmp_path / "cut.gguf"))
    assert not cache.exists() or not list(cache.iterdir())


def test_another_architecture_is_refused_by_name(tmp_path, cache):
    write_gguf(tmp_path / "tiny.gguf", architecture="mamba")
    with pytest.raises(UnsupportedError, match=r"'mamba'.*llama"):
        load(str(tmp_path / "tiny.gguf"))


def test_a_json_file_with_that_suffix_is_refused(tmp_path, cache):
    (tmp_path / "fake.gguf").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="does not begin with 'GGUF'"):
        load(str(tmp_path / "fake.gguf"))


def test_a_failed_unpacking_leaves_nothing_behind(tmp_path, cache, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *a, **k: 1 / 0)
    with pytest.raises(CheckpointError, match="cannot be unpacked: ZeroDivisionError"):
        load(str(tmp_path / "tiny.gguf"))
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="Set XDG_CACHE_HOME"):
        load(str(tmp_path / "tiny.gguf"))
