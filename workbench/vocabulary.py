"""Tokens by id or by text, for everything that asks about chosen tokens."""

from collections.abc import Sequence

from workbench.errors import PromptError
from workbench.models.protocol import Model


def token_id(model: Model, token: str | int) -> int:
    """The id of one token, given as its id or as text that is exactly one token.

    Raises:
        PromptError: an id outside the vocabulary, or text of no or several tokens; says which.
    """
    if isinstance(token, int):
        if not 0 <= token < model.cfg.d_vocab:
            raise PromptError(
                f"no token {token}: the ids of {model.name} run from 0 to {model.cfg.d_vocab - 1}"
            )
        return token
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer: give a token's id instead of text")
    special = model.tokenizer.backend.token_to_id(token) if token else None
    if special is not None and model.tokenizer.str_tokens([special]) == [token]:
        return token_id(model, special)
    ids = model.tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        pieces = " ".join(map(repr, model.tokenizer.str_tokens(ids[:8])))
        raise PromptError(
            f"{token[:40]!r} is {len(ids)} tokens of {model.name}: {pieces}; choose one, a leading space counts"
        )
    return int(ids[0])


def token_texts(model: Model, ids: Sequence[int]) -> list[str]:
    """Tokens as readable text; bare ids where the model has no tokenizer."""
    plain = [int(token) for token in ids]
    if model.tokenizer is None:
        return list(map(str, plain))
    known = model.tokenizer.backend.id_to_token
    # Embeddings may be padded beyond the vocabulary.
    return [
        model.tokenizer.str_tokens([token])[0] if known(token) is not None else f"<unused {token}>"
        for token in plain
    ]
