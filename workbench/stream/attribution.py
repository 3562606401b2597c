"""Direct logit attribution: one logit as the exact sum of what each part of the model wrote for it.

    logit[t] = Σ_parts ⟨part, W_U[:, t]⟩ / σ + b_U[t]        W_U, b_U folded, σ the final norm's scale here

σ (and the multiplier of a logit soft cap) is held at its value in this very run, so the sum is exact; the
residual says how exact. Only direct effects count: a part that later layers read, and act on, gets no credit
for that here (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Wang et al. 2023, §3.1).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.models.protocol import Model
from workbench.runs import Prompt, Run
from workbench.sites import Site
from workbench.stream.parts import (
    Part,
    after_scale,
    as_numpy,
    part_columns,
    parts_run,
    written,
)
from workbench.vocabulary import token_id, token_texts
from workbench.weights import EffectiveWeights, effective_weights

NEEDS: dict[str, tuple[str, ...]] = {
    "component": (),
    "head": ("z",),
    "neuron": ("z", "mlp_post"),
    "source": ("z", "pattern", "v"),
}
MEAN = "mean"


@dataclass(frozen=True, eq=False)
class LogitAttribution:
    """What every part adds to one logit, or to a difference of two.

    Args:
        total: the model's own number; `residual` is Σ values - total.
        target: the token, as text; `distractor` what is subtracted: a token, "mean", or nothing.
        scale: the divisor σ of the final norm at this position; 1 without a norm.
    """

    model_name: str
    str_tokens: tuple[str, ...]
    pos: int
    target: str
    distractor: str | None
    parts: tuple[Part, ...]
    values: Float[np.ndarray, " part"]
    total: float
    residual: float
    scale: float

    def table(self) -> pd.DataFrame:
        """Tidy: part kind layer head neuron source value unit; the values sum to `total`."""
        frame = part_columns(self.parts)
        return frame.assign(value=self.values, unit="logits")

    def top(self, k: int) -> pd.DataFrame:
        """The k parts that matter most, by size, and the rest of each sign as one row each: the sum is kept."""
        frame = self.table()
        order = np.argsort(-np.abs(self.values), kind="stable")
        listed, rest = frame.iloc[order[:k]], frame.iloc[order[k:]]
        sums = []
        for name, chosen in (("above 0", rest["value"] > 0), ("below 0", rest["value"] < 0)):
            if chosen.any():
                label = f"{int(chosen.sum())} others {name}"
                sums.append({"part": label, "kind": "rest", "value": rest["value"][chosen].sum()})
        if not sums:
            return listed.reset_index(drop=True)
        other = pd.DataFrame(sums).assign(unit="logits").reindex(columns=frame.columns)
        return pd.concat([listed, other.astype(frame.dtypes.to_dict())], ignore_index=True)


class _Reader(NamedTuple):
    """The direction that turns a stream at one position into the number asked for."""

    direction: Float[Tensor, " d_model"]
    bias: float
    total: float
    scale: float


def logit_attribution(
    model: Model,
    prompt: Prompt,
    target: str | int | None = None,
    *,
    distractor: str | int | None = None,
    pos: int = -1,
    by: str = "component",
) -> LogitAttribution:
    """Every part's direct contribution to a logit, or to a logit difference.

    Args:
        target: the predicted token, as text or id; default the likeliest one at this position.
        distractor: the token whose logit is subtracted; "mean" subtracts the mean over the vocabulary.
        pos: where the prediction is made; negative counts from the end.
        by: "component": a layer's attention or MLP; "head"; "neuron": heads and single neurons; "source": for
            every head and earlier token what the head moved from there.

    Raises:
        PromptError: several prompts, a token that does not exist, a position outside the prompt.
        ConfigError: another `by`.
        UnsupportedError: a post-norm model, AdaNorm, or no unembedding.
    """
    if by not in NEEDS:
        raise ConfigError(f"no parts by {str(by)[:40]!r}: there are {', '.join(NEEDS)}")
    if model.cfg.d_out == 0:
        raise UnsupportedError(f"{model.name} has no unembedding, hence no logits to attribute")
    weights = effective_weights(model)
    if by == "neuron" and model.cfg.attn_only:
        raise UnsupportedError(f"{model.name} has no MLP, hence no neurons: attribute by head")
    one = parts_run(model, prompt, NEEDS[by])
    at = _position(pos, one.tokens.shape[1])
    answer = int(one.logits[0, at].argmax()) if target is None else token_id(model, target)
    against = (
        distractor if distractor is None or distractor == MEAN else token_id(model, distractor)
    )
    reader = _reader(one, weights, at, answer, against)
    found = list(_contributions(one, weights, reader.direction, at, by))
    values = np.array([value for _, value in found] + [reader.bias])
    return LogitAttribution(
        model_name=model.name,
        str_tokens=one.str_tokens[0],
        pos=at,
        target=token_texts(model, [answer])[0],
        distractor=token_texts(model, [against])[0] if isinstance(against, int) else against,
        parts=(*(part for part, _ in found), Part("unembedding bias", "bias")),
        values=values,
        total=reader.total,
        residual=float(values.sum() - reader.total),
        scale=reader.scale,
    )


def _position(pos: int, n_pos: int) -> int:
    if not -n_pos <= pos < n_pos:
        raise PromptError(
            f"no position {pos}: the prompt's are 0 to {n_pos - 1}, or -{n_pos} to -1"
        )
    return pos % n_pos


def _reader(
    one: Run, weights: EffectiveWeights, pos: int, answer: int, against: str | int | None
) -> _Reader:
    """The pulled-back direction; a soft cap's multiplier is held at capped / uncapped."""
    cap = getattr(weights.cfg, "logit_soft_cap", None)
    scale = float(one["final_scale"][0, pos, 0]) if weights.cfg.norm != "none" else 1.0
    d_out = one.logits.shape[-1]
    ids = [token for token in (answer, against) if isinstance(token, int)]
    if beyond := [token for token in ids if token >= d_out]:
        raise PromptError(f"{one.model_name} never predicts token {beyond[0]}: ids below {d_out}")
    logits = one.logits[0, pos].double()
    kept = _kept(logits, cap)

    def column(token: int) -> tuple[Tensor, float, float]:
        W, b = weights.unembedding([token])
        m = float(kept[token])
        return m * W[:, 0].double(), m * float(b[0]), float(logits[token])

    direction, bias, total = column(answer)
    if against == MEAN:
        mean = kept / d_out
        direction = direction - weights.W_U.double() @ mean
        bias, total = bias - float(weights.b_U.double() @ mean), total - float(logits.mean())
    elif isinstance(against, int):
        less = column(against)
        direction, bias, total = direction - less[0], bias - less[1], total - less[2]
    return _Reader(direction / scale, bias, total, scale)


def _kept(logits: Float[Tensor, " token"], cap: float | None) -> Float[Tensor, " token"]:
    """How much of each logit a soft cap leaves: capped / uncapped, 1 without a cap and at zero."""
    if not cap:
        return torch.ones_like(logits)
    raw = cap * torch.atanh((logits / cap).clamp(-1 + 1e-12, 1 - 1e-12))
    return torch.where(raw.abs() < 1e-9, torch.ones_like(raw), logits / raw)


def _contributions(
    one: Run, weights: EffectiveWeights, direction: Tensor, pos: int, by: str
) -> Iterator[tuple[Part, float]]:
    """Every part's value; heads and MLPs give way to finer parts where asked for."""
    for part, vector in written(one, weights, "component" if by == "component" else "head"):
        if by == "neuron" and part.kind == "mlp":
            yield from _neurons(one, weights, direction, pos, part)
        elif by == "source" and part.kind == "head":
            yield from _sources(one, weights, direction, pos, part)
        else:
            yield part, float(vector[pos].double() @ direction)


def _neurons(
    one: Run, weights: EffectiveWeights, direction: Tensor, pos: int, whole: Part
) -> Iterator[tuple[Part, float]]:
    layer = whole.layer
    assert layer is not None
    mlp = weights.mlp(layer)
    assert mlp is not None
    post = one[Site("mlp_post", layer)][0, pos].double()
    bias = mlp.b_out.double()
    W_out = mlp.W_out.double()
    if getattr(weights.cfg, "has_post_norms", False):
        raw = (post @ W_out + bias) / weights.post_gain(layer, "ln2_post")
        size = (raw.pow(2).mean() + weights.cfg.eps).sqrt()
        W_out, bias = W_out / size, bias / size
    values = as_numpy(post * (W_out @ direction))
    for neuron, value in enumerate(values.tolist()):
        yield Part(f"{layer}.n{neuron}", "neuron", layer, neuron=neuron), value
    yield Part(f"bias of mlp {layer}", "bias", layer), float(bias @ direction)


def _sources(
    one: Run, weights: EffectiveWeights, direction: Tensor, pos: int, whole: Part
) -> Iterator[tuple[Part, float]]:
    layer, head = whole.layer, whole.head
    assert layer is not None and head is not None
    attention = weights.attention(layer)
    assert attention is not None
    pattern = one.pattern(layer)[0, head, pos].double()
    v = one[Site("v", layer)][0]
    kv_head = head // (len(attention.W_Q) // v.shape[1])
    moved = v[:, kv_head].double() - attention.b_V[head].double()
    read = attention.W_O[head].double() @ direction
    scale = after_scale(one, weights, layer)
    size = 1.0 if scale is None else float(scale[pos, 0])
    values = pattern * einsum(moved, read, "key d_head, d_head -> key") / size
    for key, value in enumerate(values.tolist()):
        if not (one.is_causal and key > pos):
            token = one.str_tokens[0][key]
            yield (
                Part(f"{layer}.{head} from {key}·{token}", "source", layer, head, source=key),
                value,
            )
