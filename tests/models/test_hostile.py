"""Hostile and broken model files: each is refused quickly, by a named error, and nothing in it runs."""

import importlib
import io
import json
import os
import pickle
import struct
import time
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import change_config

from workbench.errors import CheckpointError, UnknownModelError, UnsupportedError
from workbench.models import load
from workbench.models.checkpoints import FORMAT

QUICK_SECONDS = 5.0


@pytest.fixture(scope="module", autouse=True)
def _imports():
    """What `load` imports when first needed takes seconds, which are not the file's fault."""
    for module in ("convert", "gguf", "huggingface"):
        importlib.import_module(f"workbench.models.{module}")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refused(path, kind=CheckpointError, match=None):
    start = time.monotonic()
    with pytest.raises(kind, match=match):
        load(str(path))
    assert time.monotonic() - start < QUICK_SECONDS


class Payload:
    """What a malicious pickle does when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt"])
@pytest.mark.parametrize("form", ["torch", "torch-legacy", "bare pickle"])
def test_a_pickle_with_a_payload_is_refused_and_does_not_run(tmp_path, suffix, form):
    trace, file = tmp_path / "was-run", tmp_path / f"model.{suffix}"
    state = {"transformer.wte.weight": Payload(trace)}
    if form == "bare pickle":
        file.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "torch")
    refused(file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload of this test is harmless: it proves nothing"


def test_a_folder_with_pickled_weights_only_is_refused_by_the_file_name(theirs):
    (theirs / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(2)}, theirs / "pytorch_model.bin")
    refused(theirs, match=r"pytorch_model\.bin, which may run code")


def test_pickled_weights_beside_safetensors_are_not_looked_at(theirs):
    (theirs / "pytorch_model.bin").write_bytes(b"\x80garbage")
    assert load(str(theirs)).cfg.n_layers == 2


def test_a_view_that_claims_more_numbers_than_the_file_is_refused(tmp_path):
    torch.save({"transformer.wte.weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "m.pt")
    (tmp_path / "m.json").write_text('{"n_head": 1}')
    refused(tmp_path / "m.pt", match="claims more numbers than the file holds")


def test_broken_torch_files_are_refused(tmp_path):
    good = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, good)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    for content in (
        b"",
        b"PK\x03\x04",
        good.getvalue()[:100],
        good.getvalue()[:-30],
        archive.getvalue(),
    ):
        (tmp_path / "m.pt").write_bytes(content)
        refused(tmp_path / "m.pt")


def rezipped(path, compression, numbers):
    """A torch file, its entries written anew; with the given bytes in place of each tensor's."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, numbers if "/data/" in name else content)


def test_a_torch_file_that_grows_when_it_is_read_is_refused(tmp_path):
    file = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(2)}, file)
    rezipped(file, zipfile.ZIP_DEFLATED, bytes(50 << 20))
    assert file.stat().st_size < 100_000
    refused(file, match="compressed or larger than the file")


def test_a_torch_file_whose_entries_share_their_bytes_is_refused(tmp_path):
    file = tmp_path / "m.pt"
    torch.save({name: torch.zeros(1000) for name in "ab"}, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.filelist += [max(archive.filelist, key=lambda entry: entry.file_size)] * 5
        archive._didModify = True  # or the directory would not be written anew
    refused(file, match="entries overlap")


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, {"a": 1}, {1: torch.zeros(1)}])
def test_a_torch_file_that_is_no_state_dict_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", match="no state dict")


@pytest.mark.parametrize("where", ["ours", "theirs"])
@pytest.mark.parametrize("keep", [0, 4, 8, 50, -1, -1000])
def test_truncated_safetensors_are_refused(request, where, keep):
    folder = request.getfixturevalue(where)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, match="not a whole safetensors file")


@pytest.mark.parametrize("where", ["ours", "theirs"])
def test_a_header_that_claims_the_moon_is_refused(request, where):
    folder = request.getfixturevalue(where)
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 60) + file.read_bytes()[8:])
    refused(folder)
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    refused(folder)


def drop(weights):
    del weights[sorted(weights)[0]]


def add(weights):
    weights["surplus"] = torch.zeros(3)


def reshape(weights):
    name = sorted(weights)[0]
    weights[name] = weights[name].reshape(-1)[:-1].clone()


def retype(weights):
    name = sorted(weights)[0]
    weights[name] = weights[name].long()


def poison(weights):
    weights[sorted(weights)[-1]].view(-1)[3] = float("nan")


def overflow(weights):
    weights[sorted(weights)[-1]].view(-1)[3] = float("inf")


@pytest.mark.parametrize("change", [drop, add, reshape, retype, poison, overflow])
def test_weights_that_are_not_what_the_config_says_are_refused(ours, change):
    change_weights(ours, change)
    refused(ours)


@pytest.mark.parametrize("change", [drop, reshape, poison, overflow])
def test_foreign_weights_that_are_not_what_the_config_says_are_refused(theirs, change):
    change_weights(theirs, change)
    refused(theirs)


HUGE = 10**9


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": HUGE},
        {"num_hidden_layers": 500},
        {"hidden_size": HUGE},
        {"hidden_size": 9_999_984},
        {"vocab_size": HUGE},
        {"vocab_size": 10**30},
        {"num_attention_heads": 9_000_000},
        {"intermediate_size": 9_999_999},
        {"head_dim": 9_999_999},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"hidden_size": "many"},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"hidden_act": "os.system"},
        {"rope_parameters": {"rope_type": "nonsense"}},
    ],
    ids=str,
)
def test_a_foreign_config_that_cannot_be_meant_is_refused_before_it_costs_memory(theirs, changes):
    change_config(theirs, **changes)
    refused(theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "s" * 1000},
        {"order": 10**9},
        {"d_model": HUGE},
        {"d_vocab": 9_999_999, "d_model": 9_999_998},
        {"n_ctx": HUGE},
        {"n_ctx": 9_999_999, "positions": "rotary", "d_head": 64},
        {"n_ctx": 9_999_999, "positions": "sinusoidal", "d_model": 64},
        {"n_layers": HUGE},
        {"n_heads": 0},
        {"d_mlp": "wide"},
        {"eps": float("nan")},
        {"order": None},
        {"head_sizes": [[1] * 3]},
        {"causal": "yes"},
        {"format": "workbench-transformer-99"},
    ],
    ids=lambda changes: str(changes)[:30],
)
def test_a_config_of_ours_that_cannot_be_meant_is_refused(ours, changes):
    change_config(ours, **changes)
    refused(ours)


@pytest.mark.parametrize("where", ["ours", "theirs"])
def test_a_config_that_is_no_json_object_is_refused(request, where):
    folder = request.getfixturevalue(where)
    deep, digits = b"[" * 100_000, b'{"vocab_size": ' + b"9" * 9_000 + b"}"
    for content in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"NaN",
        deep,
        digits,
        b"x" * (2 << 20),
    ):
        (folder / "config.json").write_bytes(content)
        refused(folder)


def test_unread_kinds_of_model_are_refused_by_name(theirs):
    for model_type in ("mamba", "", 3, None, ["llama"], "../../etc/passwd", "llama\0"):
        change_config(theirs, model_type=model_type)
        refused(theirs, UnsupportedError, "are not read: there are bert, gemma")


def test_remote_code_in_a_folder_is_never_run(theirs, tmp_path):
    trace = tmp_path / "was-run"
    (theirs / "modeling_evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Model: pass\n")
    names = {"AutoConfig": "modeling_evil.Model", "AutoModelForCausalLM": "modeling_evil.Model"}
    change_config(theirs, auto_map=names)
    assert load(str(theirs)).cfg.n_layers == 2
    assert not trace.exists()


def test_quantised_folders_are_refused(theirs):
    change_config(theirs, quantization_config={"quant_method": "gptq", "bits": 4})
    refused(theirs, UnsupportedError, "quantised")


def test_an_index_that_points_out_of_its_folder_is_refused(theirs):
    for name in (
        "../ours/model.safetensors",
        "/etc/passwd",
        "weights.bin",
        "missing.safetensors",
        3,
    ):
        index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
        (theirs / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(theirs)


def test_a_broken_tokenizer_is_refused(ours, theirs):
    for folder in (ours, theirs):
        for content in ("", "{}", "[]", '{"model": {"type": "BPE"}}'):
            (folder / "tokenizer.json").write_text(content)
            refused(folder, match="is not a tokenizer")


def test_a_folder_without_a_config_is_refused(tmp_path):
    refused(tmp_path, match=r"no config\.json")


def test_files_of_other_kinds_are_refused(tmp_path):
    for name in ("model.onnx", "notes.txt", "model.h5", "model"):
        (tmp_path / name).write_bytes(b"x")
        refused(tmp_path / name, match="is no model file")


NAMES = ["", " ", "../ours", "a/../../b", "..\\x", "attn-2l/../attn-2l", "~nobody-here/x"]
NAMES += [
    "a\0b",
    "a\nb",
    "\x1b[31m",
    "\ud800",
    "x" * 100_000,
    "x" * 300,
    "/" + "x" * 300,
    "/dev/null/x",
]


@pytest.mark.parametrize(
    "name",
    NAMES,
    ids=lambda name: ascii(name)[:20],
)
def test_names_that_are_none_are_refused(name):
    refused(name, UnknownModelError, "no model")


def gguf(pairs, n_pairs=1, n_tensors=0):
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_pairs) + pairs


def gguf_pair(kind, value, key=b"general.architecture"):
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


STRING, ARRAY, UINT8 = 8, 9, 0
GGUF_FILES = {
    "long array": gguf(gguf_pair(ARRAY, struct.pack("<IQ", UINT8, 1 << 40) + b"x" * 70)),
    "array of many strings": gguf(gguf_pair(ARRAY, struct.pack("<IQ", STRING, 1 << 60))),
    "nested arrays": gguf(gguf_pair(ARRAY, struct.pack("<IQ", ARRAY, 1) * 1000)),
    "long string": gguf(gguf_pair(STRING, struct.pack("<Q", 1 << 62) + b"llama")),
    "long key": gguf(struct.pack("<Q", (1 << 64) - 1) + b"general"),
    "many pairs": gguf(gguf_pair(UINT8, b"x"), n_pairs=1 << 50),
    "many tensors": gguf(gguf_pair(UINT8, b"x"), n_tensors=1 << 50),
    "unknown type": gguf(gguf_pair(99, b"xxxxxxxx")),
    "cut short": gguf(gguf_pair(4, b"")),
    "magic alone": b"GGUF",
}


@pytest.mark.parametrize("name", GGUF_FILES)
def test_a_gguf_header_that_claims_what_the_file_cannot_hold_is_refused(tmp_path, name):
    (tmp_path / "m.gguf").write_bytes(GGUF_FILES[name])
    refused(tmp_path / "m.gguf", match="is not a whole GGUF file")


def test_a_gguf_array_of_more_values_than_any_vocabulary_is_refused(tmp_path):
    values = struct.pack("<IQ", UINT8, 5_000_000) + bytes(5_000_000)
    (tmp_path / "m.gguf").write_bytes(gguf(gguf_pair(ARRAY, values)))
    refused(tmp_path / "m.gguf", match="over 4,000,000 values")


def test_special_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    refused(tmp_path / "pipe.gguf", match="is no model file")
    refused("/dev/null", match="is no model file")
    refused("/dev/zero", match="is no model file")


def test_the_format_of_our_configs_is_the_documented_one(ours):
    assert json.loads((ours / "config.json").read_text())["format"] == FORMAT
