"""Heads and layers added to a trained transformer without a change of its logits.

    stream + Σ_old heads + z_new · 0        W_O of a new head, W_O or W_out of a new layer, start at zero

so that what is new is heard by nobody until its first step, from which on its queries, keys and values learn
too. Exact for every norm where heads are added; for layers, where norms stand before what reads (`pre`): a norm
behind a new layer would normalise the stream once more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.errors import SiteError, UnsupportedError
from workbench.models.config import TransformerConfig
from workbench.models.transformer import Transformer

Start = Callable[[Transformer, int], None]
"""(model, seed): draws initial weights, as `workbench.training.starts.language_model_start` does."""


@dataclass(frozen=True, eq=False)
class Grown:
    """A larger model with the logits of the smaller.

    Args:
        old: by parameter, true where a number of the smaller model stands; parameters wholly new are not named.
    """

    model: Transformer
    old: Mapping[str, Tensor]


def add_heads(
    model: Transformer,
    layer: int,
    n: int = 1,
    *,
    d_head: int | None = None,
    start: Start | None = None,
    seed: int = 0,
) -> Grown:
    """Add attention heads behind those of one layer; exact for every norm.

    Args:
        d_head: size of each; default that of the layer's last head.
        start: draws the weights of what is new, but for W_O, which is zero; default the model's own way.

    Raises:
        SiteError: no attention in that layer.
        UnsupportedError: keys and values that several heads share.
        ConfigError: a count or size that cannot be meant.
    """
    config = model.cfg
    if not 0 <= layer < config.n_layers or not config.blocks[layer].head_sizes:
        raise SiteError(f"{model.name} has no attention in layer {layer} to add heads to")
    if config.n_kv_heads is not None:
        raise UnsupportedError(
            f"{model.name} shares keys and values between heads (n_kv_heads {config.n_kv_heads}): "
            "heads are added where every head has its own"
        )
    _check_count("heads", n)
    sizes = list(explicit_sizes(config))
    place = sum(bool(block.head_sizes) for block in config.blocks[:layer])
    sizes[place] += (d_head or sizes[place][-1],) * n
    n_old = len(config.blocks[layer].head_sizes)
    grown = placed(model, replace(config, head_sizes=tuple(sizes)), start, seed)
    with torch.no_grad():
        grown.model.blocks[layer].attn.W_O[n_old:] = 0
    return grown


def add_layers(
    model: Transformer,
    order: str = "s",
    *,
    head_sizes: tuple[int, ...] | None = None,
    start: Start | None = None,
    seed: int = 0,
) -> Grown:
    """Add sublayers on top, spelled as in the config's `order`; exact where norms stand before readers.

    Args:
        head_sizes: of each attention added; default that of the model's last.
        start: draws the weights of what is new, but for W_O and W_out, which are zero.

    Raises:
        UnsupportedError: norms behind sublayers.
        ConfigError: an order or sizes that cannot be meant.
    """
    config = model.cfg
    if config.norm_position == "post":
        raise UnsupportedError(
            f"{model.name} normalises the stream behind every sublayer (norm_position 'post'): "
            "a new one would change its logits"
        )
    _check_count("sublayers", len(order))
    old = explicit_sizes(config)
    default = old[-1] if old else (config.d_head or config.d_model // config.n_heads,)
    added = (head_sizes or default,) * order.count("s")
    wider = replace(
        config, order=config.order + order, head_sizes=(old + added) if old + added else None
    )
    grown = placed(model, wider, start, seed)
    with torch.no_grad():
        for name, parameter in grown.model.named_parameters():
            if name not in grown.old and name.endswith((".W_O", ".W_out")):
                parameter.zero_()
    return grown


def explicit_sizes(config: TransformerConfig) -> tuple[tuple[int, ...], ...]:
    """The sizes of all heads, attention by attention."""
    return tuple(block.head_sizes for block in config.blocks if block.head_sizes)


def placed(model: Transformer, config: TransformerConfig, start: Start | None, seed: int) -> Grown:
    """A new model whose leading corners are the old one's weights."""
    dtype, device = model.embed.W_E.dtype, model.embed.W_E.device
    larger = Transformer(config, model.tokenizer, name=model.name, seed=seed)
    if start is not None:
        start(larger, seed)
    larger = larger.to(device=device, dtype=dtype).train(model.training)
    former, old = dict(model.named_parameters()), {}
    with torch.no_grad():
        for name, parameter in larger.named_parameters():
            if name not in former:
                continue
            corner = tuple(slice(0, size) for size in former[name].shape)
            parameter[corner] = former[name]
            old[name] = torch.zeros_like(parameter, dtype=torch.bool)
            old[name][corner] = True
    return Grown(larger, old)


def _check_count(what: str, n: int) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise UnsupportedError(f"at least one of the {what} must be new, not {n!r:.40}")
