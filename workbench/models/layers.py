"""The sublayers of our transformer: norm, attention, MLP. Weights and hooks bear TransformerLens' names.

Heads of unequal size in one layer are stored padded with zeros to the widest. The padding stays zero in
training: its query, key, value and output entries only ever receive gradients through each other.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.models.config import GATE_ACTIVATIONS, TransformerConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
# AdaNorm's constants as published (Xu et al. 2019, "Understanding and Improving Layer Normalization", §4).
ADA_SCALE, ADA_SLOPE = 1.0, 0.1


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape))


def is_watched(module: nn.Module, *points: str) -> bool:
    """Whether anything is attached to hook points; if not, training may take a way that skips them."""
    hooks = [getattr(module, point) for point in points]
    return any(hook._forward_hooks or hook._backward_hooks for hook in hooks)


class Norm(nn.Module):
    """One normalisation: `hook_scale` is the divisor σ, `hook_normalized` comes before gain and bias."""

    def __init__(self, config: TransformerConfig, kind: str) -> None:
        super().__init__()
        self.kind, self.eps = kind, config.eps
        if self.kind in ("LN", "RMS"):
            self.w = nn.Parameter(torch.ones(config.d_model))
        if self.kind == "LN":
            self.b = nn.Parameter(torch.zeros(config.d_model))
        if self.kind != "none":
            self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Normalise every position on its own."""
        if self.kind == "none":
            return x
        if (
            self.training
            and self.kind.startswith("LN")
            and not is_watched(self, "hook_scale", "hook_normalized")
        ):
            gain, bias = (self.w, self.b) if self.kind == "LN" else (None, None)
            return F.layer_norm(x, x.shape[-1:], gain, bias, self.eps)
        if not self.kind.startswith("RMS"):
            x = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        x = self.hook_normalized(x / scale)
        if self.kind == "LN":
            return x * self.w + self.b
        if self.kind == "RMS":
            return x * self.w
        if self.kind == "Ada":
            # The multiplier is not differentiated: AdaNorm's own definition.
            return x * (ADA_SCALE * (1 - ADA_SLOPE * x)).detach()
        return x


class Attention(nn.Module):
    """Multi-head attention; `x @ W_Q`, `z @ W_O`, one head apart from the next."""

    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor
    inverse_root: Tensor
    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: TransformerConfig, head_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.head_sizes = config, head_sizes
        heads, widest, d_model = len(head_sizes), max(head_sizes), config.d_model
        kv_heads = config.n_kv_heads or heads
        self.group = heads // kv_heads
        self.W_Q, self.W_O = _weight(heads, d_model, widest), _weight(heads, widest, d_model)
        self.W_K, self.W_V = _weight(kv_heads, d_model, widest), _weight(kv_heads, d_model, widest)
        shapes = {"b_Q": (heads, widest), "b_K": (kv_heads, widest), "b_V": (kv_heads, widest)}
        for name, shape in (shapes | {"b_O": (d_model,)}).items():
            if config.attn_bias:
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
            else:
                self.register_buffer(name, torch.zeros(shape), persistent=False)
        roots = [1 / math.sqrt(size) for size in head_sizes]
        inverse_root = torch.tensor(roots, dtype=torch.float64)
        self.register_buffer("inverse_root", inverse_root, persistent=False)
        self.one_size = len(set(head_sizes)) == 1
        if config.positions == "rotary":
            cos, sin = rotary_tables(config.n_ctx, widest, config.rotary_base)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (HookPoint() for _ in range(4))
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.dropout = nn.Dropout(config.dropout)

    @torch.no_grad()
    def initialise(self, std: float, out_std: float) -> None:
        """Draw the weights from normal distributions; the padding of unequal heads is zero."""
        for weight in (self.W_Q, self.W_K, self.W_V):
            weight.normal_(0, std)
        self.W_O.normal_(0, out_std)
        if self.one_size:
            return
        for head, size in enumerate(self.head_sizes):
            for weight in (self.W_Q, self.W_K, self.W_V):
                weight[head, :, size:] = 0
            self.W_O[head, size:] = 0

    def forward(
        self,
        qk_input: Float[Tensor, "batch pos d_model"],
        v_input: Float[Tensor, "batch pos d_model"],
        may_attend: Bool[Tensor, "#batch 1 pos pos"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the layer's heads add to the stream; `may_attend` is None where all may see all."""
        q = self.hook_q(_project(qk_input, self.W_Q, self.b_Q))
        k = self.hook_k(_project(qk_input, self.W_K, self.b_K))
        v = self.hook_v(_project(v_input, self.W_V, self.b_V))
        if self.config.positions == "rotary":
            q, k = self._rotate(q), self._rotate(k)
        if self.group > 1:
            k, v = (t.repeat_interleave(self.group, dim=2) for t in (k, v))
        z = self.hook_z(self._mix(q, k, v, may_attend))
        # One product over heads and their dimensions at once: Σ_h z[h] @ W_O[h].
        return (
            rearrange(z, "b p h d -> b p (h d)") @ rearrange(self.W_O, "h d m -> (h d) m")
            + self.b_O
        )

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, may_attend: Tensor | None) -> Tensor:
        """Σ_key pattern · v, `[batch query head d_head]`."""
        q = q * self.inverse_root[:, None].to(q.dtype)
        if self.training and not is_watched(self, "hook_attn_scores", "hook_pattern"):
            # Never builds the pattern: a third faster, to rounding the same.
            q, k, v = (rearrange(t, "b p h d -> b h p d") for t in (q, k, v))
            chance = self.dropout.p
            mixed = F.scaled_dot_product_attention(q, k, v, may_attend, chance, scale=1.0)
            return rearrange(mixed, "b h q d -> b q h d")
        scores = rearrange(q, "b q h d -> b h q d") @ rearrange(k, "b k h d -> b h d k")
        if may_attend is not None:
            # Added, not filled in: one pass over the scores instead of a copy and a pass, either way.
            hidden = torch.zeros_like(may_attend, dtype=scores.dtype)
            scores = scores + hidden.masked_fill_(~may_attend, -torch.inf)
        pattern = self.hook_pattern(self.hook_attn_scores(scores).softmax(-1))
        mixed = self.dropout(pattern) @ rearrange(v, "b k h d -> b h k d")
        return rearrange(mixed, "b h q d -> b q h d")

    def _rotate(self, x: Tensor) -> Tensor:
        cos, sin = (t[: x.shape[1], None].to(x.dtype) for t in (self.rotary_cos, self.rotary_sin))
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin


class MLP(nn.Module):
    """Feed-forward sublayer; a gated one is `act(x @ W_gate) * (x @ W_in)` (Shazeer 2020)."""

    b_in: Tensor
    b_out: Tensor
    act_fn: Callable[[Tensor], Tensor]

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d_model, d_mlp = config.d_model, config.d_mlp_or_default
        self.is_gated = config.is_gated
        self.act_fn = ACTIVATIONS[GATE_ACTIVATIONS.get(config.mlp, config.mlp)]
        self.step = 0.5 if config.half_step_mlp else 1.0
        self.W_in, self.W_out = _weight(d_model, d_mlp), _weight(d_mlp, d_model)
        if self.is_gated:
            self.W_gate, self.hook_pre_linear = _weight(d_model, d_mlp), HookPoint()
        for name, width in (("b_in", d_mlp), ("b_out", d_model)):
            if config.mlp_bias:
                self.register_parameter(name, nn.Parameter(torch.zeros(width)))
            else:
                self.register_buffer(name, torch.zeros(width), persistent=False)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    @torch.no_grad()
    def initialise(self, std: float, out_std: float) -> None:
        """Draw the weights from normal distributions."""
        self.W_in.normal_(0, std)
        self.W_out.normal_(0, out_std)
        if self.is_gated:
            self.W_gate.normal_(0, std)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the neurons add to the stream."""
        linear = torch.addmm(self.b_in, x.flatten(0, 1), self.W_in).view(*x.shape[:2], -1)
        if self.is_gated:
            gate = self.act_fn(self.hook_pre(x @ self.W_gate))
            post = gate * self.hook_pre_linear(linear)
        else:
            post = self.act_fn(self.hook_pre(linear))
        written = torch.addmm(self.b_out, self.hook_post(post).flatten(0, 1), self.W_out)
        return self.step * written.view(x.shape) if self.step != 1.0 else written.view(x.shape)


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x @ W[head] + b[head]` as one matrix product, `[batch pos head d_head]`."""
    heads, _, size = weight.shape
    flat = rearrange(weight, "h m d -> m (h d)")
    return torch.addmm(bias.flatten(), x.flatten(0, 1), flat).view(*x.shape[:2], heads, size)


def rotary_tables(
    n_ctx: int, d_head: int, base: float
) -> tuple[Float[Tensor, "n_ctx d_head"], Float[Tensor, "n_ctx d_head"]]:
    """Cosines and sines of every position; dimension i turns with i + d_head/2, as in Llama."""
    rates = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angles = torch.arange(n_ctx, dtype=torch.float64)[:, None] * rates
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def sinusoids(
    n_ctx: int, d_model: int, shortest: float, longest: float
) -> Float[Tensor, "n_ctx d_model"]:
    """Sines and cosines whose wavelengths run from `shortest` to `longest` positions, each of unit power."""
    waves = torch.logspace(math.log10(shortest), math.log10(longest), (d_model + 1) // 2)
    angles = 2 * math.pi * torch.arange(n_ctx)[:, None] / waves
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=-1)[:, :d_model]


def allowed(
    causal: bool, n_pos: int, attention_mask: Int[Tensor, "batch pos"] | None, device: torch.device
) -> Bool[Tensor, "#batch 1 pos pos"] | None:
    """Which query may attend to which key; padding is never attended to, except by itself."""
    if not causal and attention_mask is None:
        return None
    may = torch.ones(1, 1, n_pos, n_pos, dtype=torch.bool, device=device)
    if causal:
        may = may.tril()
    if attention_mask is not None:
        itself = torch.eye(n_pos, dtype=torch.bool, device=device)
        may = may & (attention_mask.bool()[:, None, None, :] | itself)
    return may
