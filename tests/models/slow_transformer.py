"""The transformer once more, position by position and head by head: slow, obvious, and sharing no code."""

import math
from functools import partial

import torch
from torch.nn import functional as F

GATES = {"glu": "sigmoid", "bilinear": "none", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}
ACTS = {
    "relu": lambda t: t.clamp(min=0),
    "gelu": F.gelu,
    "gelu_new": lambda t: (
        0.5 * t * (1 + torch.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3)))
    ),
    "silu": lambda t: t * torch.sigmoid(t),
    "sigmoid": torch.sigmoid,
    "none": lambda t: t,
}


def slow_logits(model, tokens, mask=None):
    """Logits `[batch pos d_vocab_out]` in float64, from the state dict and the config alone."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    lengths = [len(row) if mask is None else int(mask[i].sum()) for i, row in enumerate(tokens)]
    rows = [slow_row(model.cfg, weights, row[:n]) for row, n in zip(tokens, lengths, strict=True)]
    return rows if mask is not None else torch.stack(rows)


def slow_row(cfg, weights, row):
    stream = [weights["embed.W_E"][token] for token in row.tolist()]
    added = [torch.zeros(cfg.d_model, dtype=torch.float64) for _ in row]
    if cfg.positions in ("learned", "shortformer"):
        added = list(weights["pos_embed.W_pos"][: len(row)])
    if cfg.positions == "sinusoidal":
        added = [sinusoid(cfg.d_model, position) for position in range(len(row))]
    if cfg.positions != "shortformer":
        stream = [x + position for x, position in zip(stream, added, strict=True)]
        added = [torch.zeros_like(x) for x in stream]
    for layer, block in enumerate(cfg.blocks):
        part = {
            k.removeprefix(f"blocks.{layer}."): v
            for k, v in weights.items()
            if f"blocks.{layer}." in k
        }
        before = stream
        if block.head_sizes:
            attention = partial(attend, cfg, part, block, added)
            stream = sublayer(cfg, part, "ln1", stream, stream, attention)
        if block.has_mlp:
            read = before if cfg.parallel else stream
            stream = sublayer(cfg, part, "ln2", stream, read, partial(feed_forward, cfg, part))
    if cfg.norm_position == "pre":
        stream = [norm(cfg, weights, "ln_final", x) for x in stream]
    unembed = weights["embed.W_E"].T if cfg.tied_unembedding else weights["unembed.W_U"]
    bias = weights.get("unembed.b_U", 0)
    return torch.stack([x @ unembed + bias for x in stream])


def sublayer(cfg, part, name, stream, read, fn):
    if cfg.norm_position == "post":
        return [norm(cfg, part, name, x + y) for x, y in zip(stream, fn(read), strict=True)]
    written = fn([norm(cfg, part, name, x) for x in read])
    return [x + y for x, y in zip(stream, written, strict=True)]


def norm(cfg, weights, name, x):
    if cfg.norm == "none":
        return x
    if not cfg.norm.startswith("RMS"):
        x = x - x.mean()
    x = x / ((x**2).mean() + cfg.eps).sqrt()
    if cfg.norm == "Ada":
        return x * (1 - 0.1 * x)
    gain, bias = weights.get(name + ".w", 1.0), weights.get(name + ".b", 0.0)
    return x * gain + bias


def attend(cfg, part, block, added, xs):
    out = [torch.zeros(cfg.d_model, dtype=torch.float64) for _ in xs]
    n_heads = len(block.head_sizes)
    group = n_heads // (cfg.n_kv_heads or n_heads)
    for head, size in enumerate(block.head_sizes):
        q = [
            (x + p) @ part["attn.W_Q"][head] + bias(part, "b_Q", head)
            for x, p in zip(xs, added, strict=True)
        ]
        shared = head // group
        k = [
            (x + p) @ part["attn.W_K"][shared] + bias(part, "b_K", shared)
            for x, p in zip(xs, added, strict=True)
        ]
        v = [x @ part["attn.W_V"][shared] + bias(part, "b_V", shared) for x in xs]
        if cfg.positions == "rotary":
            q = [turned(cfg, x, position) for position, x in enumerate(q)]
            k = [turned(cfg, x, position) for position, x in enumerate(k)]
        for query in range(len(xs)):
            seen = query + 1 if cfg.causal else len(xs)
            scores = torch.stack([q[query] @ k[key] / math.sqrt(size) for key in range(seen)])
            exp = (scores - scores.max()).exp()
            z = sum(weight * value for weight, value in zip(exp / exp.sum(), v[:seen], strict=True))
            out[query] = out[query] + z @ part["attn.W_O"][head]
    return [x + part.get("attn.b_O", 0) for x in out]


def bias(part, name, head):
    return part[f"attn.{name}"][head] if f"attn.{name}" in part else 0


def turned(cfg, x, position):
    half, out = len(x) // 2, x.clone()
    for i in range(half):
        angle = position * cfg.rotary_base ** (-2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def feed_forward(cfg, part, xs):
    out = []
    for x in xs:
        up = x @ part["mlp.W_in"] + part.get("mlp.b_in", 0)
        gated = cfg.mlp in GATES
        hidden = ACTS[GATES[cfg.mlp]](x @ part["mlp.W_gate"]) * up if gated else ACTS[cfg.mlp](up)
        written = hidden @ part["mlp.W_out"] + part.get("mlp.b_out", 0)
        out.append(written / 2 if cfg.half_step_mlp else written)
    return out


def sinusoid(d_model, position):
    """Wavelengths from 2π to 20000π positions in equal ratios; sines first, then cosines; mean square one."""
    n = (d_model + 1) // 2
    rates = [10_000 ** (-i / (n - 1)) for i in range(n)]
    waves = [math.sin(position * r) for r in rates] + [math.cos(position * r) for r in rates]
    return math.sqrt(2) * torch.tensor(waves[:d_model], dtype=torch.float64)
