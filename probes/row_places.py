"""Where in its document a row of tokens stands, found by the row's text."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from workbench.models.tokenizer import Tokenizer

# What a decoder writes for a part of a character.
_PART = "\ufffd"


def ends_in(
    document: str, tokenizer: "Tokenizer", ids: Sequence[int]
) -> Int[np.ndarray, " pos"] | None:
    """How much of the document, in characters, is read after each token, special ones left out of `ids`.

    None where it cannot be known: the row's text stands there twice, or nowhere, as tokenizers without case or
    spaces give it.
    """
    for upto in _spellings(tokenizer, ids):
        # A row may begin with the rest of a character, and end with the start of one.
        n_before = len(upto[-1]) - len(upto[-1].lstrip(_PART))
        text = upto[-1].strip(_PART)
        begin = document.find(text) if text else -1
        if begin >= 0 and document.find(text, begin + 1) < 0:
            read = [max(0, len(some.rstrip(_PART)) - n_before) for some in upto]
            return begin + np.array(read)
    return None


def _spellings(tokenizer: "Tokenizer", ids: Sequence[int]) -> Iterator[list[str]]:
    """The text up to each token, it included: of readable tokens, then as decoders have it."""
    yield list(accumulate(tokenizer.str_tokens(ids)))
    decode = tokenizer.backend.decode
    yield [decode(list(ids[: n + 1]), skip_special_tokens=False) for n in range(len(ids))]
