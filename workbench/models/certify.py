"""The parity certificate: how far a loaded model is from its source, measured on one fixed probe at loading."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.protocol import Certificate
from workbench.models.tokenizer import Tokenizer

PROBE = "When Mary and John went to the store, John gave a drink to"
N_PROBE_IDS = 16
# Far above rounding (1e-5 of the largest logit in float32), far below any true difference.
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 1e-1}


def probe_tokens(tokenizer: Tokenizer | None, d_vocab: int, n_ctx: int) -> Int[Tensor, "1 pos"]:
    """The probe prompt's tokens; without a tokenizer that can spell it, ids spread over the vocabulary."""
    if tokenizer is not None:
        try:
            ids = tokenizer.encode(PROBE)[:n_ctx]
        except ValueError:
            ids = []
        if ids and max(ids) < d_vocab:
            return torch.tensor([ids])
    n_pos = min(N_PROBE_IDS, n_ctx)
    # A prime stride visits ids from the whole vocabulary and repeats none before it must.
    return (torch.arange(n_pos) * 7919 % d_vocab)[None]


def certificate(
    source: str, expected: Float[Tensor, "1 pos out"], found: Float[Tensor, "1 pos out"]
) -> Certificate:
    """Compare one forward pass with the source's own.

    Raises:
        UnsupportedError: they differ by more than rounding can explain: the model is not what it claims.
    """
    error = float((expected.double() - found.double()).abs().max())
    largest = float(expected.double().abs().max())
    if not error <= TOLERANCE[found.dtype] * max(1.0, largest):
        raise UnsupportedError(
            f"the loaded model differs from {source} by {error:.3g} (largest value {largest:.3g}): "
            "this variant of the architecture is not read correctly, so it is refused"
        )
    return Certificate(source, error, largest, expected.shape[1])
