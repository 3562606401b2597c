"""Order ablation: the loss of a model of which only the terms up to some order are left.

With patterns, norm scales and gates held as they were (`workbench.paths.frozen`) and X[n] what has passed
through exactly n components (`workbench.paths.order_streams`),

    loss(n) = loss read from X[0] + … + X[n]        marginal(n) = loss(n) - loss(n - 1)

The last one is the model's own loss. Constants (biases, and what norms and gates make of them) are sources,
so at order 0 all of those that no component reads are there already, beside the embeddings.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Term Importance Analysis".)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.models.protocol import Model
from workbench.paths.frozen import freeze
from workbench.paths.network import FrozenNetwork
from workbench.paths.order_streams import first_order, order_streams, path_counts
from workbench.runs import Prompt, to_batch
from workbench.scoring import CONFIDENCE, Progress
from workbench.stream.parts import Part, part_columns

DETAILS = ("none", "layer", "component")
N_RESAMPLES = 2000
UNIT = "nats per token"


@dataclass(frozen=True, eq=False)
class OrderAblation:
    """Loss by order, prompt by prompt, in nats per predicted token.

    Args:
        loss: with all terms up to each order; the last is the whole model's.
        model_loss: what the model itself loses.
        uniform: what guessing loses, log of the vocabulary.
        n_tokens: tokens predicted; prompts are weighted with it.
        n_paths: how many choices of components each order has, per source.
        parts: whose order-1 terms are looked at by themselves: layers, heads and MLPs.
        alone: loss of order 0 with that term, minus that of order 0.
        on_top: loss up to order 1, minus the same without that term.
    """

    model_name: str
    counted: str
    loss: Float[np.ndarray, "prompt order"]
    model_loss: Float[np.ndarray, " prompt"]
    uniform: float
    n_tokens: Int[np.ndarray, " prompt"]
    n_paths: tuple[int, ...]
    parts: tuple[Part, ...]
    alone: Float[np.ndarray, "prompt part"]
    on_top: Float[np.ndarray, "prompt part"]
    seed: int

    @property
    def residual(self) -> float:
        """Largest distance, over prompts, of the last order's loss from the model's own."""
        return float(np.abs(self.loss[:, -1] - self.model_loss).max())

    @property
    def marginal(self) -> Float[np.ndarray, "prompt order"]:
        """What each order changes; order 0 against guessing."""
        return np.diff(self.loss, axis=1, prepend=self.uniform)

    def table(self) -> pd.DataFrame:
        """Tidy, one row per order: order n_paths loss marginal per_path, with intervals, and unit.

        Intervals are 95 %, bootstrapped over prompts; `per_path` is the marginal over the number of paths.
        """
        columns = {
            "order": np.arange(self.loss.shape[1]),
            "n_paths": np.array(self.n_paths, dtype=float),
            **self._spread("loss", self.loss),
            **self._spread("marginal", self.marginal),
        }
        per_path = columns["marginal"] / columns["n_paths"]
        return pd.DataFrame({**columns, "per_path": per_path, "unit": UNIT})

    def part_table(self) -> pd.DataFrame:
        """Tidy, one row per part: part kind layer head, alone and on_top with intervals, and unit."""
        if not self.parts:
            return pd.DataFrame()
        columns = self._spread("alone", self.alone) | self._spread("on_top", self.on_top)
        named = part_columns(self.parts)[["part", "kind", "layer", "head"]]
        return pd.concat([named, pd.DataFrame(columns)], axis=1).assign(unit=UNIT)

    def _spread(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        return over_prompts(name, values, self.n_tokens, self.seed)


def order_ablation(
    model: Model,
    prompts: Prompt,
    *,
    counted: str = "all",
    detail: str = "component",
    seed: int = 0,
    progress: Progress | None = None,
) -> OrderAblation:
    """Loss up to every order on some prompts, and what each term of order 1 has of it.

    Args:
        counted: which components add to an order: "all", "heads" or "mlps". The others act, uncounted.
        detail: whose order-1 terms are taken apart: "none", "layer", or "component" (layers too).
        seed: of the intervals.
        progress: told after every prompt how many of how many are done.

    Raises:
        UnsupportedError: a model that predicts no next token, or that cannot be frozen.
        PromptError: prompts that cannot be read, or of one token.
        ConfigError: another word for `counted` or `detail`.
    """
    if detail not in DETAILS:
        raise ConfigError(f"no detail {detail[:40]!r}: there are {', '.join(DETAILS)}")
    check_predicts(model)
    tokens, lengths = to_batch(model, prompts)
    if min(lengths) < 2:
        raise PromptError("a prompt of one token has no next one to predict: give two or more")
    found = []
    for row, length in enumerate(lengths):
        frozen = freeze(model, tokens[row : row + 1, :length])
        found.append(_one_prompt(frozen, counted, detail))
        if progress is not None:
            progress(row + 1, len(lengths))
    columns = zip(*((one.loss, one.own, one.alone, one.on_top) for one in found), strict=True)
    loss, own, alone, on_top = (np.array(column) for column in columns)
    return OrderAblation(
        model_name=model.name,
        counted=counted,
        loss=loss,
        model_loss=own,
        uniform=math.log(model.cfg.d_out),
        n_tokens=np.array(lengths) - 1,
        n_paths=path_counts(frozen, counted),
        parts=found[0].parts,
        alone=alone,
        on_top=on_top,
        seed=seed,
    )


def check_predicts(model: Model) -> None:
    """Refuse models without a next token to lose on.

    Raises:
        UnsupportedError: they look ahead, have no unembedding, or write other tokens than they read.
    """
    cfg = model.cfg
    reason = "" if cfg.causal else "looks ahead, so there is no next token to predict"
    if cfg.d_out != cfg.d_vocab:
        reason = f"reads {cfg.d_vocab} tokens and writes {cfg.d_out}"
    if reason:
        raise UnsupportedError(f"no loss by order: {model.name} {reason}")


def frozen_logits(
    frozen: FrozenNetwork, stream: Float[Tensor, "*batch pos d_model"], *, is_whole: bool
) -> Float[Tensor, "*batch pos token"]:
    """Logits of a final stream by the frozen final norm, before any soft cap.

    Args:
        is_whole: with biases; a term that is added to a whole one brings none.
    """
    norm = frozen.final_norm
    x = stream if norm is None else norm.apply(stream)
    if norm is not None and is_whole:
        x = x + norm.bias
    logits = x @ frozen.model.W_U.detach()
    return logits + frozen.model.b_U.detach() if is_whole else logits  # type: ignore[attr-defined]


def capped(model: Model, logits: Tensor) -> Tensor:
    """Logits behind the model's soft cap, if it has one."""
    cap = getattr(model.cfg, "logit_soft_cap", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def next_token_loss(
    logits: Float[Tensor, "*batch pos token"], tokens: Int[Tensor, " pos"]
) -> Float[Tensor, "*batch"]:
    """Mean cross-entropy of a prompt's next tokens, in nats."""
    logits = logits[..., :-1, :]
    following = tokens[1:].expand(logits.shape[:-1])[..., None]
    return (logits.logsumexp(-1) - logits.gather(-1, following)[..., 0]).double().mean(-1)


def over_prompts(
    name: str,
    values: Float[np.ndarray, "prompt number"],
    n_tokens: Int[np.ndarray, " prompt"],
    seed: int,
) -> dict[str, Float[np.ndarray, " number"]]:
    """Means over tokens with intervals that resample prompts: `name`, `name_low`, `name_high`."""
    sums, counts = values * n_tokens[:, None], n_tokens.astype(float)
    mean = sums.sum(0) / counts.sum()
    low = high = np.full_like(mean, np.nan)
    if len(counts) > 1:
        chance = np.full(len(counts), 1 / len(counts))
        drawn = np.random.default_rng(seed).multinomial(len(counts), chance, size=N_RESAMPLES)
        tail = (1 - CONFIDENCE) / 2
        resampled = (drawn.astype(float) @ sums) / (drawn.astype(float) @ counts)[:, None]
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True, eq=False)
class _OnePrompt:
    loss: Float[np.ndarray, " order"]
    own: float
    parts: tuple[Part, ...]
    alone: Float[np.ndarray, " part"]
    on_top: Float[np.ndarray, " part"]


def _one_prompt(frozen: FrozenNetwork, counted: str, detail: str) -> _OnePrompt:
    model, tokens = frozen.model, frozen.run.tokens[0]
    model.readout(frozen.stream[:1])  # refuses heads of several layers

    def loss_of(logits: Tensor) -> float:
        return float(next_token_loss(capped(model, logits), tokens))

    stream = torch.zeros_like(frozen.stream)
    loss, read = (
        [],
        [],
    )  # the logits of all orders at once may not fit: only those up to order 1 stay
    for order, term in enumerate(order_streams(frozen, counted)):
        stream = stream + term
        logits = frozen_logits(frozen, stream, is_whole=True)
        loss.append(loss_of(logits))
        if order < 2:
            read.append(logits)
    parts, alone, on_top = [], [], []
    terms = [] if detail == "none" else _terms(frozen, counted, with_parts=detail == "component")
    for part, term in terms:
        change = frozen_logits(frozen, term, is_whole=False)
        parts.append(part)
        alone.append(loss_of(read[0] + change) - loss[0])
        on_top.append(loss[1] - loss_of(read[1] - change))
    own = float(next_token_loss(frozen.run.logits[0].double(), tokens))
    return _OnePrompt(np.array(loss), own, tuple(parts), np.array(alone), np.array(on_top))


def _terms(
    frozen: FrozenNetwork, counted: str, *, with_parts: bool
) -> Iterator[tuple[Part, Float[Tensor, "pos d_model"]]]:
    """Each layer's attention or MLP, and each head."""
    for step, parts, terms in first_order(frozen, counted):
        layer = step.sublayer.layer
        yield Part(f"{step.kind} {layer}", step.kind, layer), terms.sum(0)
        if with_parts and step.kind == "attn":
            yield from zip(parts, terms, strict=True)
