"""Decorrelated heads: what two heads of a layer write should not vary together.

    value = mean over layers and pairs i ≠ j of  ‖X_iᵀX_j‖² / (‖X_iᵀX_i‖ ‖X_jᵀX_j‖)      Frobenius norms

with X_i `[batch·pos d_model]` the centred output of head i: linear CKA (Kornblith et al. 2019), put to the use
of a disagreement regularizer (Li et al. 2018, "Multi-Head Attention with Disagreement Regularization", who
take cosines instead). Scale: 0 = unrelated, 1 = alike up to a rotation; above 0 by chance with few samples.
Invariances: the scale of a head, rotations of what it writes and of the stream; a head cannot lower it by
growing small. It runs the model once more, without dropout, on tokens of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.layers import Attention
from workbench.models.transformer import Transformer
from workbench.training.regularizers.strength import Regularizer
from workbench.training.wires import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadDecorrelation(Regularizer):
    """The likeness of the heads in each layer, as a penalty.

    Args:
        tokens: step → `[batch pos]` on which the heads are compared; the task's own batch, for example.
    """

    tokens: Callable[[int], Tensor]

    def value(self, model: Network, step: int = 0) -> Tensor:
        """Mean linear CKA of two heads of one layer, 0 to 1.

        Raises:
            UnsupportedError: no layer has two heads.
        """
        layers = {}
        if isinstance(model, Transformer):
            layers = {
                i: b.attn for i, b in enumerate(model.blocks) if b.attn and len(b.attn.W_O) > 1
            }
        if not isinstance(model, Transformer) or not layers:
            raise UnsupportedError(f"{model.name} has no layer with two heads to tell apart")
        found = _mixed_values(model, self.tokens(step), list(layers))
        return torch.stack(
            [_mean_off_diagonal(head_likeness(found[i], attn)) for i, attn in layers.items()]
        ).mean()


def head_likeness(
    z: Float[Tensor, "batch pos head d_head"], attn: Attention
) -> Float[Tensor, "head head"]:
    """Linear CKA of every two heads' outputs; 1 on the diagonal."""
    z = z.flatten(0, 1)
    z = z - z.mean(0)
    # Gram matrices of W_O keep everything d_head wide.
    gram = attn.W_O @ attn.W_O.mT
    between = einsum(z, z, "sample i a, sample j b -> i j a b")
    products = einsum(between, gram, between, gram, "i j a b, j b c, i j d c, i a d -> i j")
    own = products.diagonal().clamp(min=torch.finfo(z.dtype).tiny).sqrt()
    return products / own[:, None] / own[None]


def _mean_off_diagonal(likeness: Float[Tensor, "head head"]) -> Float[Tensor, ""]:
    heads = len(likeness)
    return (likeness.sum() - likeness.trace()) / (heads * (heads - 1))


def _mixed_values(model: Transformer, tokens: Tensor, layers: list[int]) -> dict[int, Tensor]:
    """What each head mixes, by layer; without dropout, whose draws would disturb the run's own."""
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(activation: Tensor, hook: object) -> None:
            found[layer] = activation

        return hook

    was_training = model.training
    model.eval()
    try:
        with model.hooks([(f"blocks.{layer}.attn.hook_z", keep(layer)) for layer in layers]):
            model(tokens)
    finally:
        model.train(was_training)
    return found
