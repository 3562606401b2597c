"""Our own small transformer, on TransformerLens' HookPoints with its hook and weight names.

    stream = embed (+ pos_embed);  each block:  stream += attn(norm(stream));  stream += mlp(norm(stream))
    logits = norm(stream) @ W_U + b_U

Every quantity that an analysis reads has a hook: see `workbench.sites`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint

from workbench.errors import SiteError
from workbench.models.config import BlockShape, TransformerConfig
from workbench.models.layers import MLP, Attention, Norm, allowed, sinusoids
from workbench.models.lock import RunLock
from workbench.models.protocol import Certificate, HookFn
from workbench.models.tokenizer import Tokenizer
from workbench.models.tokens import prompt_tokens
from workbench.sites import Site


class Block(nn.Module):
    """At most one attention followed by at most one MLP."""

    # TransformerLens' lens tools read this flag before they trust a block's output.
    hook_out_is_single_residual_stream = True
    attn: Attention | None
    mlp: MLP | None

    def __init__(self, config: TransformerConfig, shape: BlockShape) -> None:
        super().__init__()
        self.config = config
        self.has_attn, self.has_mlp = bool(shape.head_sizes), shape.has_mlp
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()
        self.dropout = nn.Dropout(config.dropout)
        self.attn = Attention(config, shape.head_sizes) if shape.head_sizes else None
        self.mlp = MLP(config) if shape.has_mlp else None
        if self.has_attn:
            self.ln1, self.hook_attn_out = Norm(config, config.norm), HookPoint()
        if self.has_mlp:
            self.ln2, self.hook_mlp_out = Norm(config, config.norm), HookPoint()
        if self.has_attn and self.has_mlp and not config.parallel:
            self.hook_resid_mid = HookPoint()

    def forward(
        self, stream: Tensor, positions: Tensor | None, may_attend: Tensor | None
    ) -> Tensor:
        """The stream after this block; `positions` go to query and key inputs only."""
        pre, is_post = self.hook_resid_pre(stream), self.config.norm_position == "post"
        stream = pre
        if self.attn is not None:
            x = pre if is_post else self.ln1(pre)
            qk_input = x if positions is None else x + positions
            stream = pre + self.hook_attn_out(self.dropout(self.attn(qk_input, x, may_attend)))
            stream = self.ln1(stream) if is_post else stream
        if self.mlp is not None:
            if self.has_attn and not self.config.parallel:
                stream = self.hook_resid_mid(stream)
            read = pre if self.config.parallel else stream
            x = read if is_post else self.ln2(read)
            stream = stream + self.hook_mlp_out(self.dropout(self.mlp(x)))
            stream = self.ln2(stream) if is_post else stream
        return self.hook_resid_post(stream)


class _Embed(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(config.d_vocab, config.d_model))


class _PosEmbed(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.positions == "sinusoidal":
            table = sinusoids(config.n_ctx, config.d_model, 2 * math.pi, 2 * math.pi * 10_000)
            self.register_buffer("W_pos", table, persistent=False)
        else:
            self.W_pos = nn.Parameter(torch.empty(config.n_ctx, config.d_model))


class _Unembed(nn.Module):
    def __init__(self, config: TransformerConfig, embed: _Embed) -> None:
        super().__init__()
        # In a list, the embedding that a tied unembedding reads is not registered a second time.
        self._tied_to = [embed] if config.tied_unembedding else []
        if not config.tied_unembedding:
            self.W_U = nn.Parameter(torch.empty(config.d_model, config.d_out))
        if config.unembed_bias:
            self.b_U = nn.Parameter(torch.zeros(config.d_out))
        else:
            self.register_buffer("b_U", torch.zeros(config.d_out), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self._tied_to[0].W_E.T if self._tied_to else self.W_U
        return x @ weight + self.b_U


class Transformer(HookedRootModule):
    """A transformer of any sublayer order; satisfies the `Model` protocol.

    Args:
        cfg: its shape.
        tokenizer: what turns text into tokens; None for models of bare numbers.
        seed: draws the initial weights, without touching torch's global generator.
    """

    name: str
    blocks: Any  # an nn.ModuleList of Block, which mypy would take for bare modules

    def __init__(
        self,
        cfg: TransformerConfig,
        tokenizer: Tokenizer | None = None,
        *,
        name: str = "transformer",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.cfg, self.tokenizer, self.name = cfg, tokenizer, name
        self.lock = RunLock()
        self.certificate: Certificate | None = None
        self.embed, self.hook_embed = _Embed(cfg), HookPoint()
        self.unembed = _Unembed(cfg, self.embed)
        self.adds_positions = cfg.positions in ("learned", "shortformer", "sinusoidal")
        if self.adds_positions:
            self.pos_embed, self.hook_pos_embed = _PosEmbed(cfg), HookPoint()
        self.blocks = nn.ModuleList(Block(cfg, shape) for shape in cfg.blocks)
        self.ln_final = Norm(cfg, cfg.norm if cfg.norm_position == "pre" else "none")
        self.embed_dropout = nn.Dropout(cfg.dropout)
        self._initialise(seed)
        self.setup()

    def _initialise(self, seed: int) -> None:
        """GPT-2's scheme: small normal weights, those that write to the stream shrunk with depth."""
        if self.embed.W_E.is_meta:
            return  # nothing to fill, and torch would load its compiler (a second) to do so
        std = 0.8 / math.sqrt(self.cfg.d_model)
        out_std = std / math.sqrt(2 * max(1, self.cfg.n_layers))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            self.embed.W_E.normal_(0, std)
            if self.cfg.positions in ("learned", "shortformer"):
                self.pos_embed.W_pos.normal_(0, std)
            for block in self.blocks:
                for sublayer in (block.attn, block.mlp):
                    if sublayer is not None:
                        sublayer.initialise(std, out_std)
            if not self.cfg.tied_unembedding:
                self.unembed.W_U.normal_(0, std)

    def __getattr__(self, name: str) -> Any:
        """Weights under their short names; those of the layers stacked, where the layers are alike."""
        if name in ("W_U", "b_U", "W_E", "W_pos"):
            return self._single_weight(name)
        if name in _ATTENTION_WEIGHTS or name in _MLP_WEIGHTS:
            sublayer = "attn" if name in _ATTENTION_WEIGHTS else "mlp"
            owners = [getattr(block, sublayer) for block in self.blocks]
            if any(owner is None or not hasattr(owner, name) for owner in owners):
                raise AttributeError(f"not every layer has {name}: read blocks[layer].{sublayer}")
            if len({getattr(owner, name).shape for owner in owners}) > 1:
                raise AttributeError(f"layers differ in the shape of {name}: read blocks[layer]")
            return torch.stack([getattr(owner, name) for owner in owners])
        return super().__getattr__(name)

    def _single_weight(self, name: str) -> Tensor:
        if name == "W_U" and self.cfg.tied_unembedding:
            return self.embed.W_E.T
        if name == "W_pos" and not self.adds_positions:
            raise AttributeError(f"positions {self.cfg.positions!r} have no W_pos")
        owner = {"W_U": "unembed", "b_U": "unembed", "W_E": "embed", "W_pos": "pos_embed"}[name]
        return getattr(super().__getattr__(owner), name)

    @property
    def rotary_rates(self) -> Float[Tensor, " pair"]:
        """Radians per position of each pair of dimensions.

        Raises:
            AttributeError: positions that do not rotate, or no attention.
        """
        attn = next((block.attn for block in self.blocks if block.attn is not None), None)
        if self.cfg.positions != "rotary" or attn is None:
            raise AttributeError(f"positions {self.cfg.positions!r} do not rotate")
        widest = attn.W_Q.shape[-1]
        pairs = torch.arange(0, widest, 2, dtype=torch.float64, device=attn.W_Q.device)
        return torch.as_tensor(self.cfg.rotary_base) ** (-pairs / widest)

    def n_heads_in(self, layer: int) -> int:
        """Heads of one layer; 0 where it has no attention."""
        return len(self.cfg.blocks[layer].head_sizes)

    def site_hook(self, site: Site) -> str:
        """The hook that carries a site.

        Raises:
            SiteError: this model has no such site.
        """
        if site.hook not in self.hook_dict:
            raise SiteError(
                f"{self.name} has no {site}: its sublayers are {self.cfg.order!r}, "
                f"positions {self.cfg.positions!r}, norm {self.cfg.norm!r}"
            )
        return site.hook

    def to_tokens(self, prompt: str) -> Int[Tensor, "1 pos"]:
        """The prompt's tokens, with the special tokens that the tokenizer adds.

        Raises:
            PromptError: a prompt that is empty, too long or cannot be spelled.
        """
        return prompt_tokens(self.tokenizer, prompt, self.cfg.n_ctx).to(self.embed.W_E.device)

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"] | str,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab_out"]:
        """Logits; `attention_mask` is 0 at padding, which stands on the right."""
        tokens = self.to_tokens(tokens) if isinstance(tokens, str) else tokens
        n_pos = tokens.shape[1]
        stream = self.hook_embed(F.embedding(tokens, self.embed.W_E))
        positions = None
        if self.adds_positions:
            positions = self.pos_embed.W_pos[:n_pos].expand(len(tokens), -1, -1)
            positions = self.hook_pos_embed(positions)
            if self.cfg.positions != "shortformer":
                stream, positions = stream + positions, None
        stream = self.embed_dropout(stream)
        may_attend = allowed(self.cfg.causal, n_pos, attention_mask, tokens.device)
        for block in self.blocks:
            stream = block(stream, positions, may_attend)
        return self.unembed(self.ln_final(stream))

    def readout(
        self, stream: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_vocab_out"]:
        """The logits if the stream ended here."""
        return self.unembed(self.ln_final(stream))

    @contextmanager
    def hooks(  # type: ignore[override]  # adds errors by name, drops nothing
        self,
        fwd_hooks: Sequence[tuple[Any, HookFn]] = (),
        bwd_hooks: Sequence[tuple[Any, HookFn]] = (),
        **kwargs: Any,
    ) -> Iterator[Self]:
        """Attach hooks for the length of a `with` block; each is called as `fn(activation, hook=point)`.

        Raises:
            SiteError: a name that is no hook of this model.
        """
        if bwd_hooks or kwargs or any(not isinstance(name, str) for name, _ in fwd_hooks):
            with super().hooks(list(fwd_hooks), list(bwd_hooks), **kwargs):
                yield self
            return
        # The usual case, without the bookkeeping that would cost a small model a fifth of its forward.
        if unknown := [name for name, _ in fwd_hooks if name not in self.hook_dict]:
            raise SiteError(f"no hook {unknown[0]!r}; this model has {len(self.hook_dict)} hooks")
        handles = []
        try:
            for name, fn in fwd_hooks:
                point = self.hook_dict[name]
                handles.append(point.register_forward_hook(partial(_call_hook, fn)))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ActivationCache]:
        """TransformerLens' own cache of every hook; `workbench.runs.run` stores far less.

        Raises:
            SiteError: a name in `names_filter` that is no hook of this model.
        """
        wanted = kwargs.get("names_filter")
        names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
        if unknown := sorted(set(names) - set(self.hook_dict)):
            raise SiteError(f"no hook {unknown[0]!r}; this model has {len(self.hook_dict)} hooks")
        logits, cache = super().run_with_cache(*args, **kwargs)
        has_batch = not kwargs.get("remove_batch_dim", False)
        return logits, ActivationCache(cache, self, has_batch_dim=has_batch)


def _call_hook(fn: HookFn, point: HookPoint, _: Any, activation: Tensor) -> Tensor | None:
    return fn(activation, hook=point)


_ATTENTION_WEIGHTS = frozenset({"W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"})
_MLP_WEIGHTS = frozenset({"W_in", "W_out", "W_gate", "b_in", "b_out"})
