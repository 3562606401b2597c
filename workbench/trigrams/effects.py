"""What a head's attention on a source does to the prediction at a destination, by hiding the source.

    effect(token) = log p(token) as the head is - log p(token) with the scores of the source's keys at -∞

at one query of one head: its attention on the other keys grows in proportion and still sums to 1. All that
comes after the head reacts. In a model of one layer that is the head's direct effect, in deeper ones the total.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.models.protocol import HookFn, Model
from workbench.scoring import Progress
from workbench.sites import Head, Site

_MOST_LOGITS, _MOST_ROWS = 1 << 25, 16


class Place(NamedTuple):
    """One destination: the row up to it, the source to hide from it, and the tokens whose effect is asked."""

    prefix: Int[np.ndarray, " pos"]
    source: int
    asked: tuple[int, ...]


class Effect(NamedTuple):
    """Effect on each token that was asked, in nats, and the attention that the source had."""

    effects: Float[np.ndarray, " asked"]
    attended: float


def hiding_effects(
    model: Model, head: Head, places: Sequence[Place], progress: Progress | None = None
) -> list[Effect]:
    """The effect of the source at every place, in their order; positive where it raises a token.

    Raises:
        SiteError: a model that has no scores to edit.
    """
    scores, pattern = (model.site_hook(Site(kind, head.layer)) for kind in ("scores", "pattern"))
    found: dict[int, Effect] = {}
    # Neighbours in length share a batch; its first is its longest and decides how many fit.
    waiting = sorted(range(len(places)), key=lambda index: -len(places[index].prefix))
    while waiting:
        fitting = _MOST_LOGITS // (len(places[waiting[0]].prefix) * model.cfg.d_out)
        n_rows = min(max(1, fitting), _MOST_ROWS)
        batch, waiting = waiting[:n_rows], waiting[n_rows:]
        of_batch = _batch_effects(model, head, (scores, pattern), [places[i] for i in batch])
        found.update(zip(batch, of_batch, strict=True))
        if progress is not None:
            progress(len(found), len(places))
    return [found[index] for index in range(len(places))]


def _batch_effects(
    model: Model, head: Head, hooks: tuple[str, str], places: Sequence[Place]
) -> list[Effect]:
    rows = [torch.as_tensor(place.prefix) for place in places]
    # Padding stands behind the destination, where a causal model does not look.
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.W_E.device)
    last = torch.tensor([len(row) - 1 for row in rows], device=tokens.device)
    sources = torch.tensor([place.source for place in places], device=tokens.device)
    earlier = torch.arange(tokens.shape[1], device=tokens.device) < last[:, None]
    at = (torch.arange(len(rows), device=tokens.device), head.head, last)
    is_source = (tokens == sources[:, None]) & earlier
    attended: list[Tensor] = []

    def read(pattern: Tensor, hook: Any) -> None:
        attended.append((pattern[at] * is_source).sum(-1))

    def hide(scores: Tensor, hook: Any) -> Tensor:
        scores = scores.clone()
        scores[at] = scores[at].masked_fill(is_source, -torch.inf)
        return scores

    intact = _log_probs(model, tokens, last, (hooks[1], read))
    hidden = _log_probs(model, tokens, last, (hooks[0], hide))
    effects = intact - hidden
    return [
        Effect(effects[row, list(place.asked)].cpu().numpy(), float(attended[0][row]))
        for row, place in enumerate(places)
    ]


def _log_probs(
    model: Model, tokens: Tensor, last: Tensor, hook: tuple[str, HookFn]
) -> Float[Tensor, "place token"]:
    with model.lock, torch.no_grad(), model.hooks(fwd_hooks=[hook]):
        logits = model(tokens)
    return logits[torch.arange(len(tokens), device=tokens.device), last].double().log_softmax(-1)
