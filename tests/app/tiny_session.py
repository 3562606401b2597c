"""A session over tiny random models: no files, no downloads; the runs, caches and locks are the real ones."""

from collections.abc import Callable
from typing import Any

import tokenizers
import torch
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from app.session import Limits, Session
from workbench.errors import UnknownModelError
from workbench.models import ModelInfo
from workbench.models.config import TransformerConfig
from workbench.models.tokenizer import Tokenizer
from workbench.models.transformer import Transformer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "ran", "to", "it"]
STEPS = (10, 100)


def tiny_model(seed: int = 0, *, n_ctx: int = 24, order: str = "ss") -> Transformer:
    backend = tokenizers.Tokenizer(
        WordLevel({word: index for index, word in enumerate([*WORDS, "[UNK]"])}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = WhitespaceSplit()
    config = TransformerConfig(
        order=order, d_model=16, n_heads=2, d_vocab=len(WORDS) + 1, n_ctx=n_ctx
    )
    return Transformer(config, Tokenizer(backend, "tiny"), name="tiny", seed=seed).eval()


class Loader:
    """`workbench.models.load` for tests: counts its calls, and may be slow or fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []
        self.before: Callable[[str, Callable[[str], None]], None] = lambda name, report: None

    def __call__(self, name: str, *, step: int | None = None, progress: Any = None) -> Transformer:
        self.calls.append((name, step))
        self.before(name, progress or (lambda line: None))
        torch.set_num_threads(1)
        model = tiny_model(seed=step or 0)
        model.name = name
        return model


def tiny_models() -> list[ModelInfo]:
    prompts = ("the cat sat on the mat", "the dog sat on the mat")
    return [
        ModelInfo("attn-2l", "bundled", True, 2000, "two layers", STEPS, prompts),
        ModelInfo("other", "bundled", True, 2000, "another", (), ("a dog ran",)),
        ModelInfo("minilm", "package", False, None, "an encoder (not installed: pip install it)"),
    ]


def no_card(name: str) -> dict[str, Any]:
    raise UnknownModelError(f"{name} has no card")


def tiny_session(loader: Loader | None = None, limits: Limits | None = None) -> Session:
    return Session(
        load=loader or Loader(), list_models=tiny_models, read_card=no_card, limits=limits
    )
