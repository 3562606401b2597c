"""The residual stream as the exact sum of what was written to it.

    stream = embed (+ pos_embed) + Σ_l Σ_h z[l, h] W_O[l, h] + Σ_l mlp_out[l] + biases

Heads are taken without the biases of their values, which flow through whatever the pattern; these and `b_O`,
`b_out` are parts of their own (`workbench.weights`), so no number hides in "the rest". The residual says how
far the sum is from the stream that the model itself computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.models.protocol import Model
from workbench.runs import Prompt, Run, available, run
from workbench.sites import Site
from workbench.weights import EffectiveWeights, effective_weights

LEVELS = ("component", "head")
SUMMED_POSITIONS = ("learned", "sinusoidal")


@dataclass(frozen=True)
class Part:
    """Who wrote: `kind` is embed, pos_embed, head, attn, mlp, neuron, source or bias."""

    label: str
    kind: str
    layer: int | None = None
    head: int | None = None
    neuron: int | None = None
    source: int | None = None


@dataclass(frozen=True, eq=False)
class StreamParts:
    """What each part wrote at every position; `residual` is the largest |Σ parts - stream| over |stream|."""

    model_name: str
    str_tokens: tuple[str, ...]
    parts: tuple[Part, ...]
    vectors: Float[Tensor, "part pos d_model"]
    final: Float[Tensor, "pos d_model"]
    residual: float


def stream_parts(model: Model, prompt: Prompt, *, by: str = "component") -> StreamParts:
    """The final residual stream of one prompt, taken apart.

    Args:
        by: "component": a layer's attention, biases included, is one part; "head": every head by itself.

    Raises:
        UnsupportedError: a post-norm model, whose stream is not a sum; AdaNorm.
        PromptError: several prompts, or one that the model cannot read.
        ConfigError: another `by`.
    """
    if by not in LEVELS:
        raise ConfigError(f"no parts by {by[:40]!r}: there are {', '.join(LEVELS)}")
    weights = effective_weights(model)
    one = parts_run(model, prompt, ("z",) if by == "head" else ())
    found = list(written(one, weights, by))
    vectors = torch.stack([vector for _, vector in found])
    final = one[Site("resid_post", one.n_layers - 1)][0] if one.n_layers else vectors.sum(0)
    # Position by position: the first token's stream may be a thousand times as long as the others'.
    sizes = final.abs().amax(-1).clamp(min=1e-30)
    error = ((vectors.double().sum(0) - final).abs().amax(-1) / sizes).max()
    parts = tuple(part for part, _ in found)
    return StreamParts(one.model_name, one.str_tokens[0], parts, vectors, final, float(error))


def parts_run(model: Model, prompt: Prompt, more: Sequence[str] = ()) -> Run:
    """A run of one prompt that keeps what the stream is made of, and `more` kinds of site.

    Raises:
        UnsupportedError: a post-norm model.
        PromptError: several prompts.
    """
    if model.cfg.norm_position == "post":
        raise UnsupportedError(
            f"{model.name} normalises after every sum, so its stream is not a sum of what was written: "
            "look at its attention, or choose a pre-norm model"
        )
    kinds = ["embed", "attn_out", "mlp_out", *more]
    kinds += ["pos_embed"] if model.cfg.positions in SUMMED_POSITIONS else []
    kinds += [f"resid_post.{model.cfg.n_layers - 1}"] if model.cfg.n_layers else []
    kinds += ["final_scale"] if model.cfg.norm != "none" else []
    one = run(model, prompt, sites=[kind for kind in kinds if _has(model, kind)])
    if len(one.lengths) != 1:
        raise PromptError(f"{len(one.lengths)} prompts: a decomposition is of one, give one text")
    return one


def written(
    one: Run, weights: EffectiveWeights, by: str
) -> Iterator[tuple[Part, Float[Tensor, "pos d_model"]]]:
    """Every part with what it wrote, from the embedding up."""
    n_pos = one.tokens.shape[1]
    yield Part("embed", "embed"), one["embed"][0]
    if weights.cfg.positions in SUMMED_POSITIONS:
        yield Part("pos_embed", "pos_embed"), one["pos_embed"][0]
    for layer in range(one.n_layers):
        attention = weights.attention(layer)
        if attention is not None and by == "component":
            yield Part(f"attn {layer}", "attn", layer), one[Site("attn_out", layer)][0]
        elif attention is not None:
            results = head_results(one, weights, layer)
            for head, result in enumerate(results):
                yield Part(f"{layer}.{head}", "head", layer, head), result
            scale = after_scale(one, weights, layer)
            bias = attention.b_O / scale if scale is not None else attention.b_O.expand(n_pos, -1)
            yield Part(f"bias {layer}", "bias", layer), bias
        if weights.has_mlp(layer):
            yield Part(f"mlp {layer}", "mlp", layer), one[Site("mlp_out", layer)][0]


def head_results(
    one: Run, weights: EffectiveWeights, layer: int
) -> Float[Tensor, "head pos d_model"]:
    """What each head of a layer wrote, without the biases of its values."""
    attention = weights.attention(layer)
    assert attention is not None
    z = one[Site("z", layer)][0] - attention.b_V
    result = einsum(z, attention.W_O, "pos head d_head, head d_head d_model -> head pos d_model")
    scale = after_scale(one, weights, layer)
    return result if scale is None else result / scale


def after_scale(one: Run, weights: EffectiveWeights, layer: int) -> Float[Tensor, "pos one"] | None:
    """The divisor of the norm on a layer's attention output; None where there is no such norm (most models)."""
    if not getattr(weights.cfg, "has_post_norms", False):
        return None
    attention = weights.attention(layer)
    assert attention is not None
    gain = weights.post_gain(layer, "ln1_post")
    z = one[Site("z", layer)][0] - attention.b_V
    whole = einsum(z, attention.W_O, "pos head d_head, head d_head d_model -> pos d_model")
    # The gain is folded into W_O, and the divisor is that of the output before it.
    raw = (whole + attention.b_O) / gain
    return (raw.pow(2).mean(-1, keepdim=True) + weights.cfg.eps).sqrt()


def _has(model: Model, kind: str) -> bool:
    return kind not in ("attn_out", "z", "mlp_out") or bool(available_kinds(model, kind))


def available_kinds(model: Model, kind: str) -> list[Site]:
    """The sites of a kind that a model has, possibly none."""
    name = "has_mlp" if kind.startswith("mlp") else "has_attn"
    layers = [index for index, block in enumerate(model.blocks) if getattr(block, name)]
    return available(model, [Site(kind, layer) for layer in layers]) if layers else []


def part_columns(parts: Sequence[Part]) -> pd.DataFrame:
    """The parts as columns `part kind layer head neuron source`; whole numbers where they apply."""
    frame = pd.DataFrame([vars(part) for part in parts]).rename(columns={"label": "part"})
    for name in ("layer", "head", "neuron", "source"):
        frame[name] = frame[name].astype(pd.Int64Dtype())
    return frame


def as_numpy(values: Tensor) -> np.ndarray:
    """On the CPU, as numpy: half-width floats become float32."""
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
