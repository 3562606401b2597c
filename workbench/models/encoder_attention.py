"""BERT's attention with hooks on scores and pattern that can be edited.

TransformerLens wraps BERT's attention whole: its `hook_pattern` is a copy, edits of which are lost, and its
`hook_attn_scores` is the pattern once more. The transformers library lets the inner function be replaced.
"""

from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

IMPLEMENTATION = "workbench_hooked"


def hook_encoder_attention(hf_model: Any) -> dict[str, HookPoint]:
    """Give every layer of a bridged BERT its own two hook points, by hook name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
    hf_model.config._attn_implementation = IMPLEMENTATION
    points = {}
    inner = [m for m in hf_model.modules() if type(m).__name__ == "BertSelfAttention"]
    for layer, module in enumerate(inner):
        for name in ("hook_attn_scores", "hook_pattern"):
            point = HookPoint()
            point.name = f"blocks.{layer}.attn.{name}"
            setattr(module, f"workbench_{name}", point)
            points[point.name] = point
    return points


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """The signature that transformers asks for: `[batch head pos d_head]` in, `[batch pos head d_head]` out."""
    scores = query @ key.mT * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    scores = module.workbench_hook_attn_scores(scores)
    pattern = module.workbench_hook_pattern(torch.softmax(scores, dim=-1))
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
