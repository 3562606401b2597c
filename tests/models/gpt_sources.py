"""nanoGPT and minGPT, retold in plain torch modules with those projects' own names, for their state dicts."""

import torch
from torch import nn
from torch.nn import functional as F


class LayerNorm(nn.Module):
    """nanoGPT's LayerNorm with an optional bias."""

    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class FusedAttention(nn.Module):
    def __init__(self, width, n_head, n_ctx, bias, has_mask):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)
        if has_mask:
            self.register_buffer("bias", torch.tril(torch.ones(n_ctx, n_ctx))[None, None])

    def forward(self, x):
        return self.c_proj(attend(*self.c_attn(x).split(x.shape[-1], dim=2), self.n_head))


class SplitAttention(nn.Module):
    def __init__(self, width, n_head, n_ctx):
        super().__init__()
        self.n_head = n_head
        self.key, self.query = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(n_ctx, n_ctx))[None, None])

    def forward(self, x):
        return self.proj(attend(self.query(x), self.key(x), self.value(x), self.n_head))


def attend(q, k, v, n_head):
    """Head by head, query by query: slow and obvious."""
    n_batch, n_pos, width = q.shape
    size, out = width // n_head, torch.zeros_like(q)
    for batch in range(n_batch):
        for head in range(n_head):
            part = slice(head * size, (head + 1) * size)
            for query in range(n_pos):
                scores = k[batch, : query + 1, part] @ q[batch, query, part] / size**0.5
                out[batch, query, part] = scores.softmax(0) @ v[batch, : query + 1, part]
    return out


class NewGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


class FusedBlock(nn.Module):
    def __init__(self, width, n_head, n_ctx, bias, project):
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(width, bias), LayerNorm(width, bias)
        self.attn = FusedAttention(width, n_head, n_ctx, bias, has_mask=project == "mingpt")
        act = NewGELU() if project == "mingpt" else nn.GELU()
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, 4 * width, bias=bias),
                "c_proj": nn.Linear(4 * width, width, bias=bias),
                "act": act,
            }
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](self.mlp["act"](self.mlp["c_fc"](self.ln_2(x))))


class FusedGPT(nn.Module):
    """nanoGPT (tied) and minGPT since 2022 (untied, with stored masks): the same names."""

    def __init__(self, project, width=24, n_layer=2, n_head=3, d_vocab=40, n_ctx=16, bias=True):
        super().__init__()
        parts = {"wte": nn.Embedding(d_vocab, width), "wpe": nn.Embedding(n_ctx, width)}
        blocks = [FusedBlock(width, n_head, n_ctx, bias, project) for _ in range(n_layer)]
        parts |= {"h": nn.ModuleList(blocks), "ln_f": LayerNorm(width, bias)}
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(width, d_vocab, bias=False)
        if project == "nanogpt":
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, tokens):
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


class SplitBlock(nn.Module):
    def __init__(self, width, n_head, n_ctx):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = SplitAttention(width, n_head, n_ctx)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class SplitGPT(nn.Module):
    """minGPT as of 2020."""

    def __init__(self, width=24, n_layer=2, n_head=3, d_vocab=40, n_ctx=16):
        super().__init__()
        self.tok_emb = nn.Embedding(d_vocab, width)
        self.pos_emb = nn.Parameter(torch.zeros(1, n_ctx, width))
        self.blocks = nn.Sequential(*(SplitBlock(width, n_head, n_ctx) for _ in range(n_layer)))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, d_vocab, bias=False)

    def forward(self, tokens):
        x = self.tok_emb(tokens) + self.pos_emb[:, : tokens.shape[1]]
        return self.head(self.ln_f(self.blocks(x)))


SOURCES = {
    "nanogpt": lambda: FusedGPT("nanogpt"),
    "nanogpt-without-biases": lambda: FusedGPT("nanogpt", bias=False),
    "mingpt": lambda: FusedGPT("mingpt"),
    "mingpt-2020": SplitGPT,
}


def source(name):
    """One of SOURCES with weights large enough for attention to be uneven."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = SOURCES[name]().eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.3)
    return model
