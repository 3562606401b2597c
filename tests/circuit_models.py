"""Models of many kinds in float64, and their circuits as plain dense matrices from the raw weights."""

import torch

from workbench.circuits.full import Circuit

KINDS = {
    "no norm, learned positions, biases": {"order": "ss", "attn_bias": True},
    "LayerNorm, learned positions, biases": {"order": "sfsf", "norm": "LN", "attn_bias": True},
    "RMSNorm, rotary, grouped, tied": {
        "order": "ss",
        "norm": "RMS",
        "positions": "rotary",
        "n_kv_heads": 2,
        "tied_unembedding": True,
    },
    "LayerNorm, rotary, biases": {
        "order": "ss",
        "norm": "LN",
        "positions": "rotary",
        "attn_bias": True,
    },
    "unequal heads": {"order": "ss", "norm": "LNPre", "head_sizes": ((4, 8, 20), (16, 16))},
    "shortformer": {"order": "ss", "positions": "shortformer", "attn_bias": True},
    "sinusoidal": {"order": "s", "norm": "RMSPre", "positions": "sinusoidal"},
}
NORM_FREE = [name for name, fields in KINDS.items() if "norm" not in fields]


def randomised(build, kind):
    """One of `KINDS`, its gains and biases random too, so that none can be forgotten."""
    fields = KINDS[kind] if isinstance(kind, str) else kind
    model = build(scale=2.0, **fields).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 or ".b_" in name:
                noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight.copy_(noise * 0.5 + 0.3)
    return model


def reading(cfg, norm):
    """The dense `[d_model d_model]` map of a norm that only divides."""
    identity = torch.eye(cfg.d_model, dtype=torch.float64)
    centre = identity - 1 / cfg.d_model if cfg.norm.startswith("LN") else identity
    return centre @ torch.diag(norm.w.detach()) if cfg.norm in ("LN", "RMS") else centre


def own_scales(cfg, rows):
    """What a norm divides each row by; ones without a norm."""
    if cfg.norm == "none":
        return torch.ones(len(rows), dtype=rows.dtype)
    rows = rows - rows.mean(-1, keepdim=True) if cfg.norm.startswith("LN") else rows
    return (rows.square().mean(-1) + cfg.eps).sqrt()


def dense_ov(model, head, rows="token", centre=True):
    """E · norm · W_V W_O · norm · W_U."""
    cfg, attn = model.cfg, model.blocks[head.layer].attn
    W_V = attn.W_V[head.head // attn.group]
    source = model.W_E if rows == "token" else model.W_pos
    into = reading(cfg, model.blocks[head.layer].ln1)
    out = reading(cfg, model.ln_final) @ model.W_U
    dense = (source @ into @ W_V @ attn.W_O[head.head] @ out).detach()
    return dense - dense.mean(1, keepdim=True) if centre else dense


def dense_qk(model, head, offset=0, axes=("token", "token"), centre=True):
    """Queries turned against keys by the model's own rotation, over the square root of the head's size."""
    cfg, attn = model.cfg, model.blocks[head.layer].attn
    kv_head = head.head // attn.group
    into = reading(cfg, model.blocks[head.layer].ln1)
    sigma = own_scales(cfg, model.W_E).square().mean().sqrt()
    shift = (
        model.blocks[head.layer].ln1.b if cfg.norm == "LN" else torch.zeros(cfg.d_model).double()
    )

    def side(axis, weight, bias):
        if axis == "token":
            return model.W_E @ into @ weight + sigma * (bias + shift @ weight)
        return model.W_pos @ (weight if cfg.positions == "shortformer" else into @ weight)

    q = side(axes[0], attn.W_Q[head.head], attn.b_Q[head.head])
    k = side(axes[1], attn.W_K[kv_head], attn.b_K[kv_head])
    if cfg.positions == "rotary":
        q = attn._rotate(q[:, None, None].expand(-1, cfg.n_ctx, -1, -1))[:, offset, 0]
    dense = (q @ k.T).detach() / attn.head_sizes[head.head] ** 0.5
    return dense - dense.mean(1, keepdim=True) if centre else dense


def plain(left, right, **fields):
    """A circuit of given factors."""
    given_fields = {
        "label": "0.0",
        "kind": "OV",
        "row_kind": "token",
        "column_kind": "token",
        "row_axis": "source",
        "column_axis": "out",
        "unit": "logits",
        "offset": None,
        "is_centred": False,
        "model_name": "m",
    }
    return Circuit(left=left, right=right, **(given_fields | fields))
