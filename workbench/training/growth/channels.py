"""Channels added to the stream of a trained transformer without a change of its logits: C → C + k.

"empty"     what writes leaves the new channels at zero; what reads them is drawn at random
"unread"    what writes fills them at random; what reads them starts at zero        only without norms

Either way the first step has a gradient. A norm sees C + k channels instead of C, k of them zero:

    Σ x² / (C+k) + ε C/(C+k)  =  C/(C+k) · (Σ x² / C + ε)

so with ε' = ε C/(C+k) what it returns is larger by √((C+k)/C), which the gains (RMS, LN) or the weights that
read (RMSPre, LNPre) take back. LayerNorm also takes the mean off, which k zeros would move: all that writes to
the stream is centred first, of which a LayerNorm behind it sees nothing. Refused, because no weight can make up
for the change: Ada (its output is not linear in the normalised stream), norms behind sublayers, sinusoids that
are no parameters, and an unembedding tied to an embedding that would have to be centred or scaled.

Exact at the moment of growth. Later, with norms, the new channels' share of Σ x² makes the old ones smaller:
frozen weights then keep their numbers, not their effect.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.transformer import Transformer
from workbench.training.growth.additions import Grown, Start, _check_count, explicit_sizes, placed

Entry = Literal["empty", "unread"]

_WRITERS = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")
_READERS = ("W_Q", "W_K", "W_V", "W_in", "W_gate", "W_U")


def add_channels(
    model: Transformer,
    k: int,
    *,
    entry: Entry = "empty",
    start: Start | None = None,
    seed: int = 0,
) -> Grown:
    """Widen `d_model` by k behind the channels there are; sizes of heads and MLPs stay.

    Args:
        entry: how the new channels come in, as above.
        start: draws the weights of what is new, but for those that are zero.

    Raises:
        UnsupportedError: a model that cannot be widened without a change, as above.
        ConfigError: more channels than a model may have.
    """
    _check_count("channels", k)
    _refuse(model, entry)
    config, width = model.cfg, model.cfg.d_model
    share = width / (width + k)
    wider = replace(
        config,
        d_model=width + k,
        d_head=config.d_head or width // config.n_heads,
        head_sizes=explicit_sizes(config) or None,
        d_mlp=config.d_mlp_or_default,
        eps=config.eps * share if config.norm != "none" else config.eps,
    )
    grown = placed(model, wider, start, seed)
    with torch.no_grad():
        if config.norm.startswith("LN"):
            _centre(grown.model, width)
        _make_room(grown.model, width, entry)
        if config.norm != "none":
            _take_back(grown.model, width, math.sqrt(share))
    return grown


def _refuse(model: Transformer, entry: Entry) -> None:
    config, why = model.cfg, None
    if entry not in ("empty", "unread"):
        why = f"new channels come in 'empty' or 'unread', not {entry!r:.40}"
    elif config.norm == "Ada":
        why = "AdaNorm is not linear in the normalised stream: no gain makes up for more channels"
    elif config.norm_position == "post":
        why = "norms behind sublayers (norm_position 'post') normalise the stream itself"
    elif config.norm != "none" and entry == "unread":
        why = (
            f"its norm {config.norm} would see channels that nobody reads: let them come in 'empty'"
        )
    elif config.positions == "sinusoidal":
        why = "its sinusoids depend on d_model and are no parameters: use learned positions"
    elif config.tied_unembedding and config.norm in ("LN", "LNPre", "RMSPre"):
        why = f"with {config.norm} its embedding would have to change, and the unembedding is tied to it"
    elif config.tied_unembedding and not config.order:
        why = "without layers, new channels of a tied embedding would never get a gradient"
    if why is not None:
        raise UnsupportedError(f"{model.name} cannot be given channels: {why}")


def _writing(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """What is added to the stream, or to what queries and keys are read from: channels come last."""
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] in _WRITERS:
            yield name, parameter


def _reading(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """What reads the stream: channels come last but one."""
    for name, parameter in model.named_parameters():
        if name.rsplit(".", 1)[-1] in _READERS:
            yield name, parameter


def _centre(model: Transformer, width: int) -> None:
    for name, weight in _writing(model):
        # Positions of "shortformer" are added behind the norm.
        if name != "pos_embed.W_pos" or model.cfg.positions == "learned":
            weight[..., :width] -= weight[..., :width].mean(-1, keepdim=True)


def _make_room(model: Transformer, width: int, entry: Entry) -> None:
    if entry == "empty":
        for _, weight in _writing(model):
            weight[..., width:] = 0
        return
    for _, weight in _reading(model):
        weight[..., width:, :] = 0
    if model.cfg.tied_unembedding:
        model.embed.W_E[:, width:] = 0


def _take_back(model: Transformer, width: int, factor: float) -> None:
    """Undo that a norm over more channels returns larger numbers."""
    if model.cfg.norm in ("LN", "RMS"):
        for name, gain in model.named_parameters():
            if name.endswith("ln_final.w") or name.endswith((".ln1.w", ".ln2.w")):
                gain[:width] *= factor
        return
    for _, weight in _reading(model):
        weight[..., :width, :] *= factor
    if model.cfg.positions == "shortformer":
        # They are read by the same weights, and were not normalised.
        model.pos_embed.W_pos[:, :width] /= factor
