"""Virtual heads: a later head that reads what an earlier head wrote, taken as one head.

    V: pattern A[later] @ A[earlier], circuit W_OV[earlier] W_OV[later]
    K: the term of the later head's scores whose keys are what the earlier head wrote, W_QK W_OV[earlier].T
    Q: the same for queries, W_OV[earlier] W_QK

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Virtual Attention Heads" and
"Two-Layer Attention-Only Transformers"). Each is the later head with one of its inputs read through the earlier
head's OV circuit, so every analysis of a head takes it; the rank stays d_head.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.composition.matching import Input, check
from workbench.errors import PromptError, SiteError
from workbench.runs import Run
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights


def virtual_head(
    weights: EffectiveWeights, later: Head, earlier: Head, *, through: Input = "V"
) -> HeadWeights:
    """The head `later∘earlier`: `later` with its values, keys or queries read through `earlier`.

    What the earlier head's bias adds does not depend on what it read: it is no part of the virtual head, and
    the bias of the replaced query or key stays with the later head. Learned positions travel through the
    earlier head as tokens do; "shortformer" positions never reach what a head writes, so there is no `pos_Q`
    or `pos_K` on that side. With rotary positions the offset is that from the later head's query to its key,
    where the earlier head stood.

    Args:
        through: the input of the later head that is replaced.

    Raises:
        SiteError: no such head, or one that is not earlier.
        UnsupportedError: norms after the sum, which stand between the two.
        ConfigError: another input.
    """
    check_order(later, earlier)
    check(weights, "K" if through == "V" else through)
    last, first = weights.head(later), weights.head(earlier)
    label = f"{later}∘{earlier}"
    if through == "V":
        return replace(last, label=label, W_V=first.W_V, W_O=first.W_O @ last.W_V @ last.W_O)

    def past(weight: Tensor) -> Tensor:
        return first.W_V @ (first.W_O @ weight)

    reaches = weights.W_pos is not None and weights.cfg.positions != "shortformer"
    label = f"{label} ({through})"
    if through == "Q":
        W_Q = past(last.W_Q)
        pos_Q = W_Q if reaches else None
        return replace(last, label=label, W_Q=W_Q, pos_Q=pos_Q, b_Q=torch.zeros_like(last.b_Q))
    W_K = past(last.W_K)
    pos_K = W_K if reaches else None
    return replace(last, label=label, W_K=W_K, pos_K=pos_K, b_K=torch.zeros_like(last.b_K))


def virtual_pattern(run: Run, later: Head, earlier: Head) -> Float[Tensor, "query key"]:
    """Where a virtual head looks on one prompt: where `earlier` looks from where `later` does; rows sum to 1.

    Raises:
        SiteError: no such head, one that is not earlier, or a run without the patterns.
        PromptError: a run of several prompts.
    """
    check_order(later, earlier)
    if len(run.lengths) != 1:
        raise PromptError(
            f"a virtual pattern is that of one prompt and this run has {len(run.lengths)}: "
            "take one with run.row(0)"
        )
    last, first = (_pattern(run, head) for head in (later, earlier))
    return last @ first


def check_order(later: Head, earlier: Head) -> None:
    """Refuse two heads of which the second is not in an earlier layer.

    Raises:
        SiteError: as said.
    """
    if earlier.layer >= later.layer:
        raise SiteError(
            f"{earlier} is not in an earlier layer than {later}, so {later} cannot read what it writes: "
            "name the later head first"
        )


def _pattern(run: Run, head: Head) -> Float[Tensor, "query key"]:
    patterns = run.pattern(head.layer)[0]
    if head.head >= len(patterns):
        raise SiteError(
            f"{run.model_name} has no head {head}: layer {head.layer} has {len(patterns)}"
        )
    return patterns[head.head]
