"""A training step of our hooked transformer against the same network written out by hand.

    python -m benchmarks.training_step

Both run forward, loss, backward and AdamW on 8 x 256 tokens. Two peers: `eager` writes the softmax out,
`sdpa` calls torch's fused attention.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import interleaved, report
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer
from workbench.training.loop import keep_freed_memory
from workbench.training.recipes import recipe

N_ROWS = 8


class PlainAttention(nn.Module):
    """Attention of one layer, weights as one matrix each."""

    def __init__(self, cfg: TransformerConfig, fused: bool) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.fused = cfg.n_heads, cfg.d_head, fused
        width, bias = cfg.n_heads * cfg.d_head, cfg.attn_bias
        self.q, self.k, self.v = (nn.Linear(cfg.d_model, width, bias=bias) for _ in range(3))
        self.o = nn.Linear(width, cfg.d_model, bias=bias)
        later = torch.ones(cfg.n_ctx, cfg.n_ctx, dtype=torch.bool).triu(1)
        self.register_buffer("later", later)

    def forward(self, qk: Tensor, x: Tensor) -> Tensor:
        """Add nothing that a hand-written model would not have."""
        batch, pos, _ = x.shape
        shape = (batch, pos, self.n_heads, self.d_head)
        q, k, v = (
            linear(given).view(shape).transpose(1, 2)
            for linear, given in ((self.q, qk), (self.k, qk), (self.v, x))
        )
        if self.fused:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.mT) / math.sqrt(self.d_head)
            z = scores.masked_fill(self.later[:pos, :pos], -torch.inf).softmax(-1) @ v
        return self.o(z.transpose(1, 2).reshape(batch, pos, -1))


class Plain(nn.Module):
    """The same network without hooks, configs or names."""

    def __init__(self, cfg: TransformerConfig, fused: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(cfg.d_vocab, cfg.d_model)
        self.pos = nn.Parameter(torch.randn(cfg.n_ctx, cfg.d_model))
        self.unembed = nn.Linear(cfg.d_model, cfg.d_vocab, bias=cfg.unembed_bias)
        self.attns = nn.ModuleList(PlainAttention(cfg, fused) for _ in cfg.blocks)
        has_norm = cfg.norm == "LN"
        norms = [nn.LayerNorm(cfg.d_model) if has_norm else nn.Identity() for _ in range(5)]
        self.norms = nn.ModuleList(norms)
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(cfg.d_model, cfg.d_mlp), nn.GELU(), nn.Linear(cfg.d_mlp, cfg.d_model)
            )
            for block in cfg.blocks
            if block.has_mlp
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        stream = self.embed(tokens)
        for layer, attn in enumerate(self.attns):
            x = self.norms[2 * layer](stream)
            stream = stream + attn(x + self.pos[: tokens.shape[1]], x)
            if self.mlps:
                stream = stream + self.mlps[layer](self.norms[2 * layer + 1](stream))
        return self.unembed(self.norms[4](stream))


def stepper(model: nn.Module, cfg: TransformerConfig) -> Callable[[], None]:
    """One whole training step on random tokens, new ones each time.

    On one batch the loss would sink to nothing, and denormal gradients would be timed instead of the step.
    """
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, fused=True)

    def step() -> None:
        tokens, targets = torch.randint(cfg.d_vocab, (2, N_ROWS, cfg.n_ctx))
        loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print a line per shape and peer."""
    torch.set_num_threads(1)
    keep_freed_memory()
    for name in ("attn-2l", "mlp-2l"):
        cfg = TransformerConfig(**recipe(name).shape)
        for peer, fused, goal in (("eager", False, "-"), ("sdpa", True, "1.10x")):
            ours, theirs = stepper(Transformer(cfg), cfg), stepper(Plain(cfg, fused), cfg)
            ratio = interleaved(ours, theirs, rounds=9, tries=2)
            report(goal, f"{name}: training step against a plain {peer} one", ratio)


if __name__ == "__main__":
    main()
