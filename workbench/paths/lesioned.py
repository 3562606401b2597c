"""One forward pass with parts deleted or sublayers reordered: by the model, and by its frozen network."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.blocks import Blocks
from workbench.models.protocol import HookFn, Model
from workbench.paths.ablation import capped, frozen_logits
from workbench.paths.maps import FrozenAttention
from workbench.paths.network import FrozenNetwork, Step
from workbench.sites import Site
from workbench.stream.parts import Part

Hooks = list[tuple[str, HookFn]]


def check_reorders(model: Model) -> None:
    """Refuse models whose sublayers do not each add to one stream.

    Raises:
        UnsupportedError: norms after the sum, or blocks whose sublayers act side by side.
    """
    if model.cfg.norm_position == "post":
        raise UnsupportedError(
            f"{model.name} normalises after every sum: its sublayers do not add to one stream, so they have "
            "no order to change"
        )
    if model.cfg.parallel:
        raise UnsupportedError(
            f"the attention and MLP of a block of {model.name} act side by side: they have no order to change"
        )


def frozen_stream(
    frozen: FrozenNetwork, removed: Sequence[Part] = (), order: Sequence[int] | None = None
) -> Float[Tensor, "pos d_model"]:
    """The final stream of the frozen network without some parts, or with its sublayers in another order."""
    natural = range(len(frozen.steps))
    touched = (
        index
        for index in natural
        if (order is not None and order[index] != index)
        or _is_gone(frozen.steps[index], removed)
        or _heads_cut(frozen.steps[index], removed)
    )
    first = next(touched, len(natural))
    levels = list(frozen.levels[: first + 1])
    for place in natural[first:]:
        step = frozen.steps[place if order is None else order[place]]
        x = levels[-1]
        x = x + _written(frozen, step, levels[step.reads if order is None else place], removed)
        levels.append(x if step.norm is None else step.norm.apply(x) + step.norm.bias)
    return levels[-1]


def _heads_cut(step: Step, removed: Sequence[Part]) -> list[int]:
    return [place for place, part in enumerate(step.components) if part in removed]


def _is_gone(step: Step, removed: Sequence[Part]) -> bool:
    """Whether a whole sublayer is deleted."""
    return any((part.kind, part.layer) == (step.kind, step.sublayer.layer) for part in removed)


def _written(
    frozen: FrozenNetwork, step: Step, read: Float[Tensor, "pos d_model"], removed: Sequence[Part]
) -> Float[Tensor, "pos d_model"]:
    if _is_gone(step, removed):
        return torch.zeros_like(read)
    written = step.sublayer.apply(read) + step.sublayer.constant
    for place in _heads_cut(step, removed):
        written = written - step.sublayer.parts(read)[place] - head_constant(frozen, step, place)
    return written


def head_constant(frozen: FrozenNetwork, step: Step, head: int) -> Float[Tensor, "pos d_model"]:
    """What a head writes whatever it reads: its value bias, and that of the norm it reads through."""
    maps = step.sublayer
    assert isinstance(maps, FrozenAttention)
    kv_head = head // (len(maps.W_O) // len(maps.W_V))
    bias = frozen.model.blocks[maps.layer].attn.b_V.detach()[kv_head]
    if maps.reads is not None:
        bias = bias + maps.reads.bias @ maps.W_V[kv_head]
    written = (bias @ maps.W_O[head]).expand_as(maps.constant)
    return written if maps.after is None else maps.after.apply(written)


def without(
    frozen: FrozenNetwork, removals: Sequence[Sequence[Part]], *, hold_norms: bool = False
) -> Float[Tensor, "lesion pos token"]:
    """The model's own logits without some parts, one row for each choice of them."""
    model = frozen.model
    places: dict[Site, list[tuple[int, int | None]]] = {}
    for row, removed in enumerate(removals):
        for part in removed:
            kind = {"head": "z", "attn": "attn_out", "mlp": "mlp_out"}[part.kind]
            places.setdefault(Site(kind, part.layer), []).append((row, part.head))
    hooks: Hooks = [(model.site_hook(site), _zeroed(rows)) for site, rows in places.items()]
    hooks += _norm_hooks(frozen) if hold_norms else []
    with model.lock, torch.no_grad(), model.hooks(hooks):
        return model(frozen.run.tokens.repeat(len(removals), 1))


def _zeroed(rows: list[tuple[int, int | None]]) -> HookFn:
    def zero(activation: Tensor, hook: Any) -> Tensor:
        activation = activation.clone()
        for row, head in rows:
            if head is None:
                activation[row] = 0
            else:
                activation[row, :, head] = 0
        return activation

    return zero


def _norm_hooks(frozen: FrozenNetwork) -> Hooks:
    """Every norm divides by what it divided by in the frozen run."""

    def held(scale: Tensor) -> HookFn:
        return lambda activation, hook: scale.expand_as(activation)

    run = frozen.run
    scales = [site for site in run.sites if site.kind.endswith("_scale")]
    return [(frozen.model.site_hook(site), held(run[site])) for site in scales]


def reordered(
    frozen: FrozenNetwork,
    order: Sequence[int],
    removed: Sequence[Part] = (),
    *,
    hold_norms: bool = False,
) -> Float[Tensor, "pos token"]:
    """The model's own logits with its sublayers called in another order, without some parts."""
    model = frozen.model
    check_reorders(model)
    heads: Hooks = [
        (model.site_hook(Site("z", part.layer)), _zeroed([(0, part.head)]))
        for part in removed
        if part.kind == "head"
    ]
    held = _norm_hooks(frozen) if hold_norms else []
    blocks = Blocks(model, frozen.run.tokens)
    x = frozen.levels[0][None]
    for index in order:
        step = frozen.steps[index]
        if not _is_gone(step, removed):
            x = x + _added(blocks, step, x, [*heads, *held])
    if hold_norms:
        return capped(model, frozen_logits(frozen, x[0], is_whole=True))
    with model.lock, torch.no_grad():
        return model.readout(x)[0]


def _added(
    blocks: Blocks, step: Step, x: Float[Tensor, "1 pos d_model"], hooks: Hooks
) -> Float[Tensor, "1 pos d_model"]:
    """What one sublayer adds to a stream that it reads."""
    layer, model, kept = step.sublayer.layer, blocks.model, []
    chosen = list(hooks)
    if step.kind == "mlp" and model.blocks[layer].has_attn:

        def instead(activation: Tensor, hook: Any) -> Tensor:
            return x

        chosen.append((model.site_hook(Site("resid_mid", layer)), instead))

    def keep(activation: Tensor, hook: Any) -> None:
        kept.append(activation)

    out = Site("attn_out" if step.kind == "attn" else "mlp_out", layer)
    chosen.append((model.site_hook(out), keep))
    with model.lock, torch.no_grad(), model.hooks(chosen):
        blocks.call(layer, x)
    return kept[0]
