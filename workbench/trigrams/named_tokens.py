"""Tokens by what is written in them: all that contain a text, and the one that a text names.

Text is compared with the decoded tokens. The signs that tables show for space, new line, tab and return
(`·` `↵` `⇥` `␍`) may be typed instead of them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from workbench.errors import PromptError
from workbench.models.protocol import Model
from workbench.models.tokenizer import Tokenizer
from workbench.vocabulary import token_id, token_texts

_SIGNS = str.maketrans({"·": " ", "↵": "\n", "⇥": "\t", "␍": "\r"})
_SHOWN, _LONGEST_SHOWN = 5, 40


def find_tokens(tokenizer: Tokenizer, text: str, limit: int = 20) -> list[int]:
    """Ids of tokens that contain a text: exact ones first, then those that differ in case or outer space.

    After these the rest, of the same case before others, shorter before longer.

    Raises:
        PromptError: no text, an empty one, or a limit below 1.
    """
    _check_text(text)
    if limit < 1:
        raise PromptError(f"at least one token must be asked for, not {limit}")
    wanted = {text, text.translate(_SIGNS)}
    folded = {one.casefold() for one in wanted}
    stripped = {one.strip() for one in folded}
    found = []
    for token, spelled in _vocabulary(tokenizer).items():
        small = spelled.casefold()
        if any(one in small for one in folded):
            same_case = any(one in spelled for one in wanted)
            rank = (spelled != text, small.strip() not in stripped, not same_case)
            found.append((*rank, len(spelled), token))
    return [key[-1] for key in sorted(found)[:limit]]


def named_token(model: Model, token: int | str) -> int:
    """The id of a token that is given by its id or by its exact text, spaces included.

    Raises:
        PromptError: no such token, or a text that several share; names the nearest.
    """
    if isinstance(token, bool) or not isinstance(token, int | str):
        raise PromptError(f"a token is given by its id or its text, not by {type(token).__name__}")
    if isinstance(token, int):
        return token_id(model, token)
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer: give a token's id instead of text")
    _check_text(token)
    vocabulary = _vocabulary(model.tokenizer)
    for text in (token, token.translate(_SIGNS)):
        same = [id for id, spelled in vocabulary.items() if spelled == text]
        if len(same) > 1:
            raise PromptError(f"{text!r} is the text of the tokens {same}: give one of these ids")
        if same:
            return token_id(model, same[0])
    near = ", ".join(f"{vocabulary[id]!r} ({id})" for id in _nearest(model.tokenizer, token))
    raise PromptError(
        f"{_short(token)} is not one token of {model.name}; a leading space counts. Near are {near}"
    )


def spelled_tokens(model: Model, ids: Sequence[int]) -> dict[int, str]:
    """Tokens by id as readable text; bare ids where the model has no tokenizer."""
    chosen = sorted(set(ids))
    return dict(zip(chosen, token_texts(model, chosen), strict=True))


def _nearest(tokenizer: Tokenizer, text: str) -> list[int]:
    from rapidfuzz import fuzz, process

    held = find_tokens(tokenizer, text, _SHOWN)
    # A text far longer than any token is as near to them as its beginning.
    close = process.extract(
        text[:_LONGEST_SHOWN], _vocabulary(tokenizer), scorer=fuzz.ratio, limit=_SHOWN
    )
    return list(dict.fromkeys([*held, *(id for _, _, id in close)]))[:_SHOWN]


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Tokenizer) -> Mapping[int, str]:
    ids = sorted(tokenizer.backend.get_vocab(with_added_tokens=True).values())
    return MappingProxyType(dict(zip(ids, tokenizer.str_tokens(ids), strict=True)))


def _check_text(text: str) -> None:
    if not isinstance(text, str) or not text:
        given = "nothing" if text == "" else type(text).__name__
        raise PromptError(f"a search needs at least one character of text, not {given}")


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…")
