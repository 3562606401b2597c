"""One forward pass with its multipliers (patterns, norm scales, gates) held fixed: exactly affine.

The frozen network gives
back the model's own stream at the values that it was frozen at; `residual` says how exactly. It does not say
what the model would do on another prompt: there patterns, scales and gates are others.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Freezing attention patterns".)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import PromptError, UnsupportedError
from workbench.models.layers import ADA_SCALE, ADA_SLOPE
from workbench.models.protocol import Model
from workbench.paths.maps import FrozenAttention, FrozenMLP, FrozenNorm, gate_of
from workbench.paths.network import FrozenNetwork, Step
from workbench.runs import Prompt, Run, run
from workbench.sites import Site
from workbench.stream.parts import SUMMED_POSITIONS, Part, available_kinds

# A larger distance to the model's own numbers than single precision explains: something was not understood.
TOLERANCE = torch.finfo(torch.float32).eps ** 0.5


def freeze(model: Model, prompt: Prompt) -> FrozenNetwork:
    """The frozen network of one prompt.

    Raises:
        PromptError: several prompts, or one that the model cannot read.
        UnsupportedError: an activation whose multiplier is not known, dropout at work, half-width numbers, or a
            model whose stream the frozen network does not give back.
    """
    if getattr(model, "training", False) and getattr(model.cfg, "dropout", 0.0):
        raise UnsupportedError(
            f"{model.name} is in training mode, where dropout changes every pass: call .eval() on it"
        )
    if model.W_E.dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(
            f"{model.name} computes in {model.W_E.dtype}, too coarse for sums to be exact: "
            'load it with dtype="float32"'
        )
    one = run(model, prompt, sites=_sites(model), budget="8GB")
    if len(one.lengths) != 1:
        raise PromptError(f"{len(one.lengths)} prompts: one is frozen at a time, give one text")
    steps = tuple(_steps(model, one))
    last = model.cfg.n_layers - 1
    sources = _sources(model, one)
    start = torch.stack(list(sources.values())).sum(0)
    stream = one[Site("resid_post", last)][0] if model.cfg.n_layers else start
    final = None
    if model.cfg.norm_position == "pre":
        final = _norm(model, model.ln_final, one, "final", None)  # type: ignore[attr-defined]
    frozen = FrozenNetwork(model, one, sources, steps, final, stream)
    check_exact(model, "stream", frozen.residual, stream.dtype)
    return frozen


def check_exact(model: Model, what: str, residual: float, dtype: torch.dtype) -> None:
    """Refuse a sum that is off: an unknown mask, multiplier or activation must not pass for a finding."""
    if not residual <= max(TOLERANCE, torch.finfo(dtype).eps ** 0.5):
        raise UnsupportedError(
            f"what is frozen of {model.name} misses the model's own {what} by {residual:.1e} (relative): "
            "something in it (an activation, a mask, a multiplier) is not known here, so no sum would be exact"
        )


def _sites(model: Model) -> list[str | Site]:
    kinds = ["pattern", "z", "mlp_pre", "mlp_post"]
    kinds += ["mlp_pre_linear"] if _is_gated(model) else []
    sites: list[str | Site] = [site for kind in kinds for site in _available(model, kind)]
    norms = _norm_sites(model)
    sites += [site for kind in norms for site in _available(model, kind)]
    if model.cfg.n_layers:
        sites += ["resid_pre.0", f"resid_post.{model.cfg.n_layers - 1}"]
    if model.cfg.positions in SUMMED_POSITIONS and model.cfg.norm_position == "pre":
        sites.append("pos_embed")
    if norms and model.cfg.norm_position == "pre":
        sites += ["final_scale", "final_normalized"] if model.cfg.norm == "Ada" else ["final_scale"]
    return [*sites, "embed"]


def _norm_sites(model: Model) -> list[str]:
    if model.cfg.norm == "none":
        return []
    names = ["ln1_scale", "ln2_scale"]
    return [*names, "ln1_normalized", "ln2_normalized"] if model.cfg.norm == "Ada" else names


def _available(model: Model, kind: str) -> list[Site]:
    sublayer = "mlp_out" if kind.startswith(("mlp", "ln2")) else "attn_out"
    return [Site(kind, site.layer) for site in available_kinds(model, sublayer)]


def _is_gated(model: Model) -> bool:
    return bool(model.cfg.is_gated)


def _sources(model: Model, one: Run) -> dict[Part, Float[Tensor, "pos d_model"]]:
    embed, pos_embed = Part("embed", "embed"), Part("pos_embed", "pos_embed")
    start = one["resid_pre.0"][0] if model.cfg.n_layers else one["embed"][0]
    if Site("pos_embed") not in one.sites:
        return {embed: start}
    return {embed: one["embed"][0], pos_embed: one["pos_embed"][0].expand_as(start)}


def _steps(model: Model, one: Run) -> list[Step]:
    steps: list[Step] = []
    is_post = model.cfg.norm_position == "post"
    for layer, block in enumerate(model.blocks):
        level = len(steps)
        if block.has_attn:
            norm = _norm(model, block.ln1, one, "ln1", layer)
            maps = _attention(model, one, layer, None if is_post else norm)
            steps.append(Step(maps, level, norm if is_post else None))
        if block.has_mlp:
            norm = _norm(model, block.ln2, one, "ln2", layer)
            mlp = _mlp(model, one, layer, None if is_post else norm)
            reads = level if model.cfg.parallel else len(steps)
            steps.append(Step(mlp, reads, norm if is_post else None))
    return steps


def _norm(model: Model, norm: Any, one: Run, name: str, layer: int | None) -> FrozenNorm | None:
    kind = str(model.cfg.norm)
    if kind == "none" or norm is None:
        return None
    scale = one[Site(f"{name}_scale", layer)][0]
    d_model = model.cfg.d_model
    gain = (1 / scale).expand(-1, d_model)
    bias = scale.new_zeros(d_model)
    if kind in ("LN", "RMS"):
        gain = gain * norm.w.detach()
    if kind == "LN":
        bias = norm.b.detach()
    if kind == "Ada":
        # AdaNorm's own factor of every coordinate, held as its definition holds it from the gradient.
        normalized = one[Site(f"{name}_normalized", layer)][0]
        gain = gain * ADA_SCALE * (1 - ADA_SLOPE * normalized)
    return FrozenNorm(gain, bias, is_centred=not kind.startswith("RMS"))


def _attention(model: Model, one: Run, layer: int, reads: FrozenNorm | None) -> FrozenAttention:
    block = model.blocks[layer]
    attn = block.attn
    W_V, W_O, b_V, b_O = (getattr(attn, name).detach() for name in ("W_V", "W_O", "b_V", "b_O"))
    pattern = one.pattern(layer)[0]
    constant = b_O.expand(pattern.shape[-1], -1)
    bias = b_V if reads is None or not reads.bias.any() else b_V + reads.bias @ W_V
    if bias.any():
        bias = bias.repeat_interleave(len(W_O) // len(W_V), 0)
        # Rows sum to 1 only as exactly as the softmax was rounded.
        constant = constant + torch.einsum("hp,hd,hdm->pm", pattern.sum(-1), bias, W_O)
    after = None
    if getattr(block, "ln1_post", None) is not None:
        z = one[Site("z", layer)][0]
        after = _after(block.ln1_post, torch.einsum("phd,hdm->pm", z, W_O) + b_O)
    constant = constant if after is None else after.apply(constant)
    return FrozenAttention(layer, reads, pattern, W_V, W_O, after, constant)


def _mlp(model: Model, one: Run, layer: int, reads: FrozenNorm | None) -> FrozenMLP:
    block = model.blocks[layer]
    mlp, step = block.mlp, getattr(block.mlp, "step", 1.0)
    W_in, b_in = mlp.W_in.detach(), mlp.b_in.detach()
    W_out, b_out = step * mlp.W_out.detach(), step * mlp.b_out.detach()
    pre, post = one[Site("mlp_pre", layer)][0], one[Site("mlp_post", layer)][0]
    name = _activation(model)
    gate = _act(name)(pre) if mlp.is_gated else gate_of(pre, post, _slope(model, name))
    bias = b_in if reads is None or not reads.bias.any() else b_in + reads.bias @ W_in
    constant = b_out.expand(len(gate), -1)
    if bias.any():
        constant = constant + (bias * gate) @ W_out
    after = None
    if getattr(block, "ln2_post", None) is not None:
        after = _after(block.ln2_post, post @ W_out + b_out)
        constant = after.apply(constant)
    return FrozenMLP(layer, reads, W_in, W_out, gate, after, constant)


def _after(norm: Any, raw: Float[Tensor, "pos d_model"]) -> FrozenNorm:
    """The RMSNorm on a sublayer's own output, at the size that the output has here."""
    if norm.kind != "RMS":
        raise UnsupportedError(f"a norm of kind {norm.kind!r} on a sublayer's output is not frozen")
    scale = (raw.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return FrozenNorm(norm.w.detach() / scale, torch.zeros_like(raw[0]), is_centred=False)


def _activation(model: Model) -> str:
    from workbench.models.config import GATE_ACTIVATIONS

    name = getattr(model.cfg, "act_fn", None) or model.cfg.mlp
    return GATE_ACTIVATIONS.get(name, name)


def _slope(model: Model, name: str) -> float:
    """The activation's slope at zero.

    Raises:
        UnsupportedError: an activation that is not zero at zero, hence no multiple of what it reads.
    """
    with torch.inference_mode(False), torch.enable_grad():
        zero = torch.zeros((), requires_grad=True)
        value = _act(name)(zero)
        (slope,) = torch.autograd.grad(value, zero)
    if float(value.detach()) != 0:
        raise UnsupportedError(
            f"{model.name} has MLPs with activation {name!r}, which is {float(value.detach()):g} at zero: no "
            "multiplier of what a neuron reads gives what it writes"
        )
    return float(slope)


def _act(name: str) -> Any:
    from transformers.activations import ACT2FN

    from workbench.models.layers import ACTIVATIONS

    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    if name in ACT2FN:
        return ACT2FN[name]
    raise UnsupportedError(f"no activation {name!r} is known to freeze the gates of")
