"""Random prompts on which heads are scored: repeats, and tokens without any pattern."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.protocol import Model

SHORTEST = 8


def reach(model: Model) -> int:
    """The longest prompt in which every query may see every key that causality allows."""
    window = model.cfg.window
    return int(min(model.cfg.n_ctx, window) if window else model.cfg.n_ctx)


def check_settings(n_prompts: int, n_pos: int | None, seed: int) -> None:
    """Refuse settings that cannot be meant.

    Raises:
        UnsupportedError: the first of them, and its range.
    """
    for name, value, least in (("n_prompts", n_prompts, 1), ("n_pos", n_pos, 1), ("seed", seed, 0)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise UnsupportedError(f"{name} must be a whole number from {least}, not {value!r:.40}")


def random_repeats(model: Model, n_prompts: int, n_pos: int, seed: int) -> Int[Tensor, "batch pos"]:
    """Prompts `[BOS] p r r r …` of distinct random tokens, with random period and random phase.

    Raises:
        UnsupportedError: the context or the vocabulary is too small for any repeat.
    """
    before, plain, after = _vocabulary(model)
    free = _free(model, n_pos, len(before) + len(after))
    longest = min(free // 2, len(plain) // 2)
    if longest < 2:
        raise UnsupportedError(f"{model.name} has {len(plain)} tokens: too few for repeats")
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_prompts):
        period = int(rng.integers(max(2, min(free // 8, longest)), longest + 1))
        drawn = rng.choice(plain, size=2 * period, replace=False)
        prefix, repeated = drawn[period : period + int(rng.integers(period))], drawn[:period]
        body = np.concatenate([prefix, np.tile(repeated, free // period + 1)])[:free]
        rows.append([*before, *body.tolist(), *after])
    return torch.tensor(rows)


def random_tokens(model: Model, n_prompts: int, n_pos: int, seed: int) -> Int[Tensor, "batch pos"]:
    """Prompts of random tokens, distinct where the vocabulary allows: position is all there is to go by.

    Raises:
        UnsupportedError: the context is too small.
    """
    before, plain, after = _vocabulary(model)
    free = _free(model, n_pos, len(before) + len(after))
    rng = np.random.default_rng(seed)
    rows = [rng.choice(plain, size=free, replace=len(plain) < free) for _ in range(n_prompts)]
    return torch.tensor([[*before, *row.tolist(), *after] for row in rows])


def _vocabulary(model: Model) -> tuple[list[int], list[int], list[int]]:
    """Special tokens before, tokens that stand for text, special tokens after."""
    if model.tokenizer is None:
        return [], list(range(model.cfg.d_vocab)), []
    before, after = model.tokenizer.special_around()
    return before, model.tokenizer.plain_ids(), after


def _free(model: Model, n_pos: int, n_special: int) -> int:
    longest = reach(model)
    if not SHORTEST <= n_pos <= longest or n_pos - n_special < SHORTEST // 2:
        raise UnsupportedError(
            f"heads are scored on prompts of {SHORTEST} tokens or more; {model.name} reads {longest} "
            f"and {n_pos} were asked for: give prompts=… of its own kind"
        )
    return n_pos - n_special
