"""A pre-norm transformer run from its folded weights alone: every norm only divides. Slow and obvious."""

import math

import torch

from tests.models.slow_transformer import ACTS, GATES
from workbench.rotary import rotate

TORCH_ACTS = ACTS | {
    "gelu_pytorch_tanh": ACTS["gelu_new"],
    "swish": ACTS["silu"],
}


def folded_logits(model, weights, tokens):
    """Logits `[pos d_vocab_out]` of one row of token ids."""
    cfg = weights.cfg
    stream = weights.W_E[tokens]
    added = torch.zeros_like(stream)
    if weights.W_pos is not None and cfg.positions == "shortformer":
        added = weights.W_pos[: len(tokens)]
    elif weights.W_pos is not None:
        stream = stream + weights.W_pos[: len(tokens)]
    for layer in range(cfg.n_layers):
        before, block = stream, model.blocks[layer]
        if weights.attention(layer) is not None:
            written = attend(cfg, weights, layer, divided(cfg, stream), added, block)
            stream = stream + renormed(cfg, written, getattr(block, "ln1_post", None))
        if weights.mlp(layer) is not None:
            read = before if cfg.parallel else stream
            written = feed_forward(cfg, weights.mlp(layer), divided(cfg, read))
            stream = stream + renormed(cfg, written, getattr(block, "ln2_post", None))
    logits = divided(cfg, stream) @ weights.W_U + weights.b_U
    cap = getattr(cfg, "logit_soft_cap", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def divided(cfg, x):
    if cfg.norm == "none":
        return x
    centred = x if cfg.norm.startswith("RMS") else x - x.mean(-1, keepdim=True)
    return x / ((centred**2).mean(-1, keepdim=True) + cfg.eps).sqrt()


def renormed(cfg, written, norm):
    # The gain is in what was written already, so the size is that of the output without it.
    if norm is None:
        return written
    raw = written / norm.w.detach().to(written)
    return written / ((raw**2).mean(-1, keepdim=True) + cfg.eps).sqrt()


def attend(cfg, weights, layer, x, added, block):
    total = weights.attention(layer).b_O.expand(len(x), -1).clone()
    for head in [head for head in weights.heads if head.layer == layer]:
        w = weights.head(head)
        q, k = x @ w.W_Q + w.b_Q, x @ w.W_K + w.b_K
        if cfg.positions == "shortformer":
            q, k = q + added @ w.pos_Q, k + added @ w.pos_K
        if getattr(cfg, "has_qk_norm", False):
            q, k = (
                t / (((t / g.detach().to(t)) ** 2).mean(-1, keepdim=True) + cfg.eps).sqrt()
                for t, g in ((q, block.attn.q_gain), (k, block.attn.k_gain))
            )
        z = pattern(cfg, w, q, k, layer) @ (x @ w.W_V)
        total = total + z @ w.W_O
    return total


def pattern(cfg, w, q, k, layer):
    scores = torch.full((len(q), len(k)), -math.inf, dtype=q.dtype)
    cap = getattr(cfg, "attn_soft_cap", None)
    for i in range(len(q)):
        for j in range(i + 1 if cfg.causal else len(k)):
            turned = q[i] if w.rates is None else rotate(q[i], w.rates, i - j)
            score = turned @ k[j] / w.scale
            scores[i, j] = cap * torch.tanh(score / cap) if cap else score
    return scores.softmax(-1)


def feed_forward(cfg, mlp, x):
    act = cfg.act_fn if hasattr(cfg, "act_fn") else GATES.get(cfg.mlp, cfg.mlp)
    linear = x @ mlp.W_in + mlp.b_in
    if mlp.W_gate is None:
        return TORCH_ACTS[act](linear) @ mlp.W_out + mlp.b_out
    return TORCH_ACTS[act](x @ mlp.W_gate + mlp.b_gate) * linear @ mlp.W_out + mlp.b_out
