"""Public models, through TransformerLens' bridge: the plain weights and numerics of the transformers library.

The bridge's hook names are TransformerLens' own, but on some architectures they do not mean what
`workbench.sites` says. Here each site is led to the hook that does, or refused with the reason.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.normalization import (
    NATIVE_PATH_EDIT_FALLBACK_WARNING,
)
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

from workbench.errors import SiteError, UnsupportedError
from workbench.models.bridge_blocks import BridgeBlock, BridgeNorm
from workbench.models.encoder_attention import hook_encoder_attention
from workbench.models.families import FAMILIES, BridgeConfig
from workbench.models.lock import RunLock
from workbench.models.protocol import Certificate, HookFn
from workbench.models.tokenizer import Tokenizer
from workbench.models.tokens import prompt_tokens
from workbench.sites import KINDS, Site, expand

# An edit of a norm's sites is told by a warning that the norm is then computed from it: that is the purpose.
warnings.filterwarnings("ignore", message=NATIVE_PATH_EDIT_FALLBACK_WARNING[:60])

PLAIN_ROTARY = ("default", "linear", "llama3")

# BERT's blocks normalise the sum (post-norm), where TransformerLens' aliases point one step too far.
_POST_NORM_HOOKS = {
    "embed": "embed.hook_out",
    "attn_out": "blocks.{layer}.attn.o.hook_out",
    "resid_mid": "blocks.{layer}.ln1.hook_out",
}


class BridgeModel:
    """A public model behind the `Model` protocol.

    Args:
        hf_model: a model of the transformers library; its submodules are replaced in place.
        tokenizer: None where the folder has none.
    """

    def __init__(
        self, hf_model: Any, cfg: BridgeConfig, tokenizer: Tokenizer | None, *, name: str
    ) -> None:
        self.name, self.cfg, self.tokenizer = name, cfg, tokenizer
        self.lock = RunLock()
        self.bridge = build_bridge_from_module(
            hf_model,
            FAMILIES[cfg.model_type].model_class,
            hf_config=hf_model.config,
            model_name=name,
        ).eval()
        self._hf = hf_model
        self.certificate: Certificate | None = None
        own = hook_encoder_attention(hf_model) if cfg.model_type == "bert" else {}
        self.missing = _missing_kinds(cfg)
        self.hook_dict: dict[str, HookPoint] = self._find_hooks(own)
        self.blocks = [BridgeBlock(block, cfg) for block in self.bridge.blocks]

    def _find_hooks(self, own: dict[str, HookPoint]) -> dict[str, HookPoint]:
        known = {**self.bridge.hook_dict, **own}
        moved = _POST_NORM_HOOKS if self.cfg.norm_position == "post" else {}
        found = {}
        for site in expand([kind for kind in KINDS if kind not in self.missing], self.cfg.n_layers):
            source = moved.get(site.kind, KINDS[site.kind].hook).format(layer=site.layer)
            found[site.hook] = known[source]
        return found

    def site_hook(self, site: Site) -> str:
        """The hook that carries a site.

        Raises:
            SiteError: this architecture has no such site; the message says why.
        """
        if site.kind in self.missing:
            raise SiteError(f"{self.name} has no {site}: {self.missing[site.kind]}")
        if site.hook not in self.hook_dict:
            raise SiteError(
                f"no site {site}: the layers of {self.name} run from 0 to {self.cfg.n_layers - 1}"
            )
        return site.hook

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Token embedding, as it enters the stream."""
        weight = self._hf.get_input_embeddings().weight
        return weight * self.cfg.embed_scale if self.cfg.embed_scale != 1.0 else weight

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        """Position embedding.

        Raises:
            AttributeError: the model has rotary positions.
        """
        if self.cfg.positions != "learned":
            raise AttributeError(f"positions {self.cfg.positions!r} have no W_pos")
        return self.bridge.pos_embed.weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab_out"]:
        """Unembedding; `[d_model 0]` for an encoder without a trained head."""
        if not self.cfg.has_unembed:
            return self.W_E.new_zeros(self.cfg.d_model, 0)
        return self._hf.get_output_embeddings().weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab_out"]:
        """Bias of the unembedding; zeros where there is none."""
        bias = self._hf.get_output_embeddings().bias if self.cfg.has_unembed else None
        return self.W_U.new_zeros(self.cfg.d_out) if bias is None else bias

    @property
    def ln_final(self) -> BridgeNorm | None:
        """The norm before the unembedding; None in post-norm models."""
        if self.cfg.norm_position == "post":
            return None
        return BridgeNorm(self.bridge.ln_final, self.cfg)

    @property
    def rotary_rates(self) -> Float[Tensor, " half_rotary_dim"]:
        """Radians per position of each pair of dimensions.

        Raises:
            AttributeError: the model has no rotary positions.
            UnsupportedError: they depend on the prompt's length, or scale the scores.
        """
        if self.cfg.positions != "rotary":
            raise AttributeError(f"positions {self.cfg.positions!r} do not rotate")
        rotary = self._hf.base_model.rotary_emb
        if rotary.rope_type not in PLAIN_ROTARY or rotary.attention_scaling != 1.0:
            raise UnsupportedError(
                f"{self.name} has rotary positions of type {str(rotary.rope_type)[:40]!r}, which depend on "
                f"the prompt's length or scale the scores: understood are {', '.join(PLAIN_ROTARY)}"
            )
        return rotary.inv_freq

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every weight, each once."""
        return self._hf.parameters()

    def n_heads_in(self, layer: int) -> int:
        """Heads of one layer."""
        return self.cfg.n_heads

    def to_tokens(self, prompt: str) -> Int[Tensor, "1 pos"]:
        """The prompt's tokens, with the special tokens that the model's own tokenizer adds.

        Raises:
            PromptError: a prompt that is empty, too long or cannot be spelled.
        """
        return prompt_tokens(self.tokenizer, prompt, self.cfg.n_ctx).to(self.W_E.device)

    def __call__(
        self,
        tokens: Int[Tensor, "batch pos"] | str,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab_out"]:
        """Logits; `attention_mask` is 0 at padding, which stands on the right."""
        tokens = self.to_tokens(tokens) if isinstance(tokens, str) else tokens
        given: dict[str, Any] = {"attention_mask": attention_mask}
        if self.cfg.positions == "learned":
            # Otherwise transformers embeds the positions once for the whole batch: [1 pos d_model].
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            given["position_ids"] = positions.expand(len(tokens), -1)
        if not self.cfg.has_unembed:
            # The head of such a folder is random, and would cost more than the rest.
            hidden = self._hf.base_model(tokens, **given).last_hidden_state
            return hidden.new_zeros(*tokens.shape, 0)
        if self.cfg.causal:
            given["use_cache"] = False
        return self._hf(tokens, **given).logits

    def readout(
        self, stream: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_vocab_out"]:
        """The logits if the stream ended here.

        Raises:
            UnsupportedError: an encoder, whose head has layers of its own or none at all.
        """
        norm = self.ln_final
        if norm is None or not self.cfg.has_unembed:
            what = (
                "no trained unembedding" if not self.cfg.has_unembed else "a head of several layers"
            )
            raise UnsupportedError(
                f"{self.name} has {what}, so its stream cannot be read as next-token logits"
            )
        logits = norm(stream) @ self.W_U + self.b_U
        cap = self.cfg.logit_soft_cap
        return cap * torch.tanh(logits / cap) if cap else logits

    @contextmanager
    def hooks(self, fwd_hooks: Sequence[tuple[str, HookFn]]) -> Iterator["BridgeModel"]:
        """Run with these hooks attached; each is called as `fn(activation, hook=point)`.

        An edit is what `fn` returns. Writing into the activation is no edit: at norms it would be lost.

        Raises:
            SiteError: a name that is no hook of this model.
        """
        for name, _ in fwd_hooks:
            if name not in self.hook_dict:
                self.site_hook(Site.parse(name))
        with ExitStack() as attached:
            for name, fn in fwd_hooks:
                point = self.hook_dict[name]
                handle = point.add_hook(fn if point.hook_conversion is None else _on_path(fn))
                attached.callback(_detach, point, handle)
            yield self

    def run_with_hooks(
        self,
        tokens: Int[Tensor, "batch pos"],
        fwd_hooks: Sequence[tuple[str, HookFn]],
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos d_vocab_out"]:
        """Logits of a run with hooks attached."""
        with self.hooks(fwd_hooks):
            return self(tokens, attention_mask)

    def run_with_cache(
        self,
        tokens: Int[Tensor, "batch pos"],
        names_filter: str | Sequence[str] | Callable[[str], bool] | None = None,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
    ) -> tuple[Float[Tensor, "batch pos d_vocab_out"], ActivationCache]:
        """Logits and the activations by hook name; `workbench.runs.run` stores less."""
        if names_filter is None:
            names = list(self.hook_dict)
        elif callable(names_filter):
            names = [name for name in self.hook_dict if names_filter(name)]
        else:
            names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        store: dict[str, Tensor] = {}

        def keep(name: str) -> HookFn:
            def fn(activation: Tensor, hook: HookPoint) -> None:
                store[name] = activation.detach()

            return fn

        logits = self.run_with_hooks(tokens, [(name, keep(name)) for name in names], attention_mask)
        return logits, ActivationCache(store, self)


def _on_path(fn: HookFn) -> HookFn:
    """Of a hook that sees a reshaped view: let the run go on with that view, so that gradients reach it."""

    def wrapped(activation: Tensor, hook: HookPoint) -> Tensor | None:
        edited = fn(activation, hook=hook)
        return activation if edited is None and activation.requires_grad else edited

    return wrapped


def _detach(point: HookPoint, handle: Any) -> None:
    handle.hook.remove()
    point.fwd_hooks.remove(handle)


def _missing_kinds(cfg: BridgeConfig) -> dict[str, str]:
    """The kinds of site that an architecture lacks, with the reason."""
    missing = {}
    if cfg.positions == "rotary":
        missing["pos_embed"] = "positions are rotary, nothing is added to the stream"
    if cfg.parallel:
        missing["resid_mid"] = (
            "attention and MLP of a block read the same stream, there is no middle"
        )
    if not cfg.is_gated:
        missing["mlp_pre_linear"] = "its MLPs are not gated"
    if cfg.norm_position == "post":
        reason = "a post-norm model has no norm between its last block and its head"
        missing |= {"final_scale": reason, "final_normalized": reason}
    return missing
