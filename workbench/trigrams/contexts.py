"""A text cut into contexts: rows of token ids, each of which a model reads by itself."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from workbench.errors import ConfigError, PromptError
from workbench.models.protocol import Model
from workbench.models.tokens import checked_tokens
from workbench.prompts import reach
from workbench.training.held_out import held_out_text

CONTEXT = 256
PADDING = -1
_LINES = 4000

Text = str | Sequence[int] | Sequence[Sequence[int]] | np.ndarray | Tensor


def contexts(
    model: Model, tokens: Text | None = None, context: int | None = None
) -> Int[np.ndarray, "row pos"]:
    """Rows of token ids that begin as the model's prompts begin, -1 behind the end of the last one.

    Args:
        tokens: text or ids, which are cut; or rows of ids, which stay as they are. Default the bundled held-out
            text.
        context: longest row; default 256, or what the model sees at once.

    Raises:
        PromptError: an empty text, ids outside the vocabulary, rows too long, or text without a tokenizer.
        ConfigError: a context too short or too long for the model.
    """
    longest = reach(model)
    if tokens is None or isinstance(tokens, str):
        ids = _encoded(model, held_out_text() if tokens is None else tokens)
    else:
        given: Any = tokens.tolist() if isinstance(tokens, np.ndarray) else tokens
        # Of any length at first: what has no rows yet is cut below.
        rows = checked_tokens(given, model.cfg.d_vocab, sys.maxsize)
        if np.ndim(given) == 2:
            return checked_tokens(rows, model.cfg.d_vocab, longest).cpu().numpy()
        ids = rows[0].cpu().numpy()
    begin = model.tokenizer.special_around()[0] if model.tokenizer else []
    context = min(CONTEXT, longest) if context is None else context
    if not len(begin) + 2 <= context <= longest:
        raise ConfigError(
            f"contexts of {model.name} have {len(begin) + 2} to {longest} tokens, not {context}"
        )
    width = context - len(begin)
    body = np.full((-(-len(ids) // width), width), PADDING)
    body.flat[: len(ids)] = ids
    return np.concatenate([np.tile(np.array(begin, dtype=int), (len(body), 1)), body], axis=1)


def _encoded(model: Model, text: str) -> Int[np.ndarray, " token"]:
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer: give token ids instead of text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the text is not valid Unicode at character {error.start}") from error
    # In pieces of whole lines, as in training: the Rust encoder's offsets of a long text take gigabytes.
    lines = text.splitlines(keepends=True)
    pieces = ["".join(lines[start : start + _LINES]) for start in range(0, len(lines), _LINES)]
    rows = model.tokenizer.backend.encode_batch_fast(pieces, add_special_tokens=False)
    ids = [token for row in rows for token in row.ids]
    if not ids:
        raise PromptError("the text holds no token: give another, or none for the bundled one")
    return np.array(ids)
