"""What a decomposition is of: a direction of the stream, with the number that the model itself gives.

A logit is `⟨stream[pos], N.T (W_U[:, token])⟩ + bias`, N the frozen final norm; a difference of logits is the
difference of two such directions. A soft cap is held at capped / uncapped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import PromptError, UnsupportedError
from workbench.paths.frozen import check_exact
from workbench.paths.network import FrozenNetwork
from workbench.runs import Run
from workbench.sites import Site
from workbench.vocabulary import token_id, token_texts

MEAN = "mean"


@dataclass(frozen=True, eq=False)
class Direction:
    """A linear question asked of the stream: `⟨vector, stream⟩ + bias = total`.

    Args:
        label: `logit of ' Mary' minus ' John' at 13`.
        total: the model's own number.
        pos: the position where the stream is asked.
        unit: of `total` and of everything that adds up to it.
        n_steps: steps of the network in front of the level that is asked; None: all, the final stream.
        measure: the same number of any run of the model, such as one with an intervention; the run must have
            kept `sites`.
    """

    label: str
    vector: Float[Tensor, "pos d_model"]
    bias: float
    total: float
    pos: int
    measure: Callable[[Run], float]
    sites: tuple[Site, ...] = ()
    unit: str = "logits"
    n_steps: int | None = None


def logit_direction(
    frozen: FrozenNetwork,
    target: str | int | None = None,
    *,
    distractor: str | int | None = None,
    pos: int = -1,
) -> Direction:
    """The direction of a logit, or of a difference of two.

    Args:
        target: as text or id; default the likeliest token at this position.
        distractor: the token whose logit is subtracted; "mean" subtracts the mean over the vocabulary.

    Raises:
        PromptError: a token that does not exist or is never predicted, a position outside the prompt.
        UnsupportedError: a model whose stream is not read as next-token logits, or is in another way.
    """
    model, logits = frozen.model, frozen.run.logits[0]
    if model.cfg.d_out == 0:
        raise UnsupportedError(f"{model.name} has no unembedding, hence no logits to take apart")
    model.readout(frozen.stream[:1])  # refuses heads of several layers
    n_pos = len(logits)
    if not -n_pos <= pos < n_pos:
        raise PromptError(
            f"no position {pos}: the prompt's are 0 to {n_pos - 1}, or -{n_pos} to -1"
        )
    at = pos % n_pos
    answer = int(logits[at].argmax()) if target is None else token_id(model, target)
    against = None if distractor in (None, MEAN) else token_id(model, distractor)  # type: ignore[arg-type]
    for token in (answer, against):
        if token is not None and token >= model.cfg.d_out:
            raise PromptError(
                f"{model.name} never predicts token {token}: ids below {model.cfg.d_out}"
            )
    weights = _weights(model, logits[at], answer, against, mean=distractor == MEAN)
    vector = torch.zeros_like(frozen.stream)
    vector[at] = model.W_U.detach() @ weights
    bias = float(model.b_U.detach() @ weights)  # type: ignore[attr-defined]  # both kinds have it
    if frozen.final_norm is not None:
        bias += float(frozen.final_norm.bias @ vector[at])
        vector = frozen.final_norm.transpose(vector)

    total = _total(logits[at], answer, against, mean=distractor == MEAN)
    missed = abs(float((vector * frozen.stream).sum()) + bias - total)
    size = float(logits[at].abs().max().clamp(min=1e-30))
    check_exact(model, "logits", missed / size, logits.dtype)

    def measure(run: Run) -> float:
        return _total(run.logits[0, at], answer, against, mean=distractor == MEAN)

    text = " minus ".join(
        [repr(token_texts(model, [answer])[0])]
        + ([repr(token_texts(model, [against])[0])] if against is not None else [])
        + (["the mean"] if distractor == MEAN else [])
    )
    return Direction(f"logit of {text} at {at}", vector, bias, total, at, measure)


def _weights(
    model: Any, logits: Float[Tensor, " token"], answer: int, against: int | None, *, mean: bool
) -> Float[Tensor, " token"]:
    """How much of each token's uncapped logit is asked for."""
    kept = torch.ones_like(logits)
    if cap := getattr(model.cfg, "logit_soft_cap", None):
        raw = cap * torch.atanh((logits / cap).clamp(-1 + 1e-7, 1 - 1e-7))
        kept = torch.where(raw.abs() < 1e-6, kept, logits / raw)
    wanted = torch.zeros_like(logits)
    wanted[answer] += 1
    if against is not None:
        wanted[against] -= 1
    if mean:
        wanted -= 1 / len(logits)
    return wanted * kept


def _total(
    logits: Float[Tensor, " token"], answer: int, against: int | None, *, mean: bool
) -> float:
    total = logits[answer].double()
    total = total - (logits[against].double() if against is not None else 0)
    return float(total - (logits.double().mean() if mean else 0))
