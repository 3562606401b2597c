"""Shared by all tests: few threads, and small models whose numbers can be checked by hand."""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# For processes that tests start: two threads each, of several at once, wait for one another most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from app.cli import main
from workbench import load
from workbench.models.config import TransformerConfig
from workbench.models.protocol import Model
from workbench.models.tokenizer import Tokenizer
from workbench.models.transformer import Transformer

torch.set_num_threads(1)

Build = Callable[..., Transformer]


def letters() -> Tokenizer:
    """`^` before every prompt, then one token a letter a-p."""
    from tokenizers import Regex, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    vocabulary = {symbol: index for index, symbol in enumerate("^?abcdefghijklmnop")}
    backend = Backend(models.WordLevel(vocabulary, unk_token="?"))
    backend.add_special_tokens(["^", "?"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.post_processor = processors.TemplateProcessing(single="^ $A", special_tokens=[("^", 0)])
    return Tokenizer(backend, "letters")


@pytest.fixture(scope="session")
def build() -> Build:
    """Makes a random model over letters whose weights are large enough for attention to be uneven."""

    def make(seed: int = 0, scale: float = 4.0, **fields: object) -> Transformer:
        shape = {"order": "ss", "d_model": 32, "n_heads": 4, "d_vocab": 18, "n_ctx": 32} | fields
        model = Transformer(TransformerConfig(**shape), letters(), name="letters", seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def model(build: Build) -> Transformer:
    """Two layers of attention and MLP with LayerNorm, learned positions and biases."""
    return build(order="sfsf", norm="LN", attn_bias=True, mlp_bias=True)


@pytest.fixture(scope="session")
def attn_2l() -> Transformer:
    """The bundled two-layer model."""
    return load("attn-2l")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """SmolLM2-135M: RMSNorm, rotary positions, grouped-query heads, gated MLPs."""
    return load("smollm2")


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def workbench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """Runs the command in this process: a process of its own would load torch anew each time."""

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, words)])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            main()
        return Done(int(stop.value.code or 0), *capsys.readouterr())

    return run
