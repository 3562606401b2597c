"""A thousand different models that cost next to nothing: what a batch takes for them is the engine's own."""

from pathlib import Path

import numpy as np
import torch

from probes.data import ProbeData
from workbench.models.checkpoints import save_checkpoint
from workbench.models.config import TransformerConfig
from workbench.models.tokenizer import Tokenizer
from workbench.models.transformer import Transformer

LETTERS = "abcdefghijklmnop"
SYMBOLS = f"^?{LETTERS}"


def tiny_models(count: int, folder: Path) -> str:
    """Write untrained models over letters, two layers of two heads each; the pattern that names them."""
    tokenizer = _letters()
    for seed in range(count):
        config = TransformerConfig(
            order="ss", d_model=16, n_heads=2, d_vocab=len(SYMBOLS), n_ctx=32
        )
        with torch.no_grad():
            model = Transformer(config, tokenizer, name=f"tiny-{seed}", seed=seed)
            save_checkpoint(model, folder / f"tiny-{seed}")
    return f"{folder}/*/"


def letter_documents(count: int = 16, length: int = 200) -> ProbeData:
    """Random text that these models read."""
    rng = np.random.default_rng(0)
    documents = tuple("".join(rng.choice(list(LETTERS), size=length)) for _ in range(count))
    return ProbeData(documents, "letters")


def _letters() -> Tokenizer:
    from tokenizers import Regex, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend

    vocabulary = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="?"))
    backend.add_special_tokens(["^", "?"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.post_processor = processors.TemplateProcessing(single="^ $A", special_tokens=[("^", 0)])
    return Tokenizer(backend, "letters")
