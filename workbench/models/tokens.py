"""Token tensors, checked before they reach a model."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import CheckpointError, PromptError
from workbench.models.tokenizer import Tokenizer


def prompt_tokens(tokenizer: Tokenizer | None, prompt: str, n_ctx: int) -> Int[Tensor, "1 pos"]:
    """A prompt's tokens as a batch of one.

    Raises:
        PromptError: no tokenizer, or a prompt that is empty, too long or cannot be spelled.
    """
    if tokenizer is None:
        raise PromptError("this model has no tokenizer: give token ids instead of text")
    ids = tokenizer.encode(prompt)
    if len(ids) > n_ctx:
        raise PromptError(
            f"the prompt has {len(ids)} tokens; this model reads at most {n_ctx} (n_ctx): shorten it"
        )
    return torch.tensor([ids])


def checked_tokens(
    tokens: Tensor | Sequence[Sequence[int]] | Sequence[int], d_vocab: int, n_ctx: int
) -> Int[Tensor, "batch pos"]:
    """Token ids as a checked `[batch pos]` tensor; a single row may come without its batch axis.

    Raises:
        PromptError: ids outside the vocabulary, a wrong shape or type, nothing at all, or too many.
    """
    try:
        ids = torch.as_tensor(tokens)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PromptError(
            f"token ids must be whole numbers in rows of one length: {error}"
        ) from error
    ids = ids[None] if ids.ndim == 1 else ids
    if ids.dtype in (torch.uint16, torch.uint32):
        ids = ids.long()  # torch cannot compare these
    if ids.ndim != 2 or ids.numel() == 0:
        raise PromptError(f"token ids must be [batch pos] and not empty, not {list(ids.shape)}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise PromptError(f"token ids must be whole numbers, not {ids.dtype}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= d_vocab:
        wrong = low if low < 0 else high
        raise PromptError(f"no token {wrong}: this model's ids run from 0 to {d_vocab - 1}")
    if ids.shape[1] > n_ctx:
        raise PromptError(
            f"{ids.shape[1]} tokens; this model reads at most {n_ctx} (n_ctx): shorten the prompt"
        )
    return ids.long()


def check_vocabulary(tokenizer: Tokenizer | None, d_vocab: int, where: str) -> None:
    """Compare a tokenizer with the model that it came with.

    Raises:
        CheckpointError: it has an id for which the model has no embedding. A count of tokens would not tell:
            ids may leave gaps.
    """
    if tokenizer is None:
        return
    largest = max(tokenizer.backend.get_vocab().values(), default=-1)
    if largest >= d_vocab:
        raise CheckpointError(
            f"{where}: the tokenizer has the token id {largest}, the model only ids below {d_vocab}: "
            "one of them belongs to another model"
        )
