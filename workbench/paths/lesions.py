"""Lesions: what a model loses without some of its parts, or with its sublayers in another order.

    true         the model runs without them, everything behind recomputed
    norms held   the same, with every norm dividing by what it divided by in the whole run; a deep model's
                 stream may then grow without bound, and the number is NaN
    frozen       patterns, norm scales and gates held (`workbench.paths.frozen`): exact sums of the paths left

A deleted sublayer adds nothing, no bias either; a deleted head writes nothing, its value bias included. Where
true and frozen agree, paths that do not pass through a part do not notice that it is gone, as in an ensemble.
(Veit, Wilber, Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", §4.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.protocol import Model
from workbench.paths.ablation import UNIT as LOSS_UNIT
from workbench.paths.ablation import (
    capped,
    check_predicts,
    frozen_logits,
    next_token_loss,
    over_prompts,
)
from workbench.paths.frozen import freeze
from workbench.paths.lesioned import check_reorders, frozen_stream, reordered, without
from workbench.paths.network import FrozenNetwork
from workbench.runs import Prompt, to_batch
from workbench.scoring import Progress
from workbench.stream.parts import Part
from workbench.vocabulary import token_id

LEVELS = ("layer", "component")
BATCH = 8
Measure = Callable[
    [Float[Tensor, "*batch pos token"], Int[Tensor, " pos"]], Float[Tensor, "*batch"]
]


@dataclass(frozen=True)
class Lesion:
    """What is done to a model.

    Args:
        removed: sublayers (`attn 0`, `mlp 0`) and heads that add nothing.
        order: the sublayers' new order; None as they are.
    """

    label: str
    removed: tuple[Part, ...] = ()
    order: tuple[int, ...] | None = None

    @property
    def kendall(self) -> float:
        """Rank correlation of the new order with the old: 1 unchanged, 0 as a random one, -1 reversed."""
        if self.order is None:
            return 1.0
        return float(stats.kendalltau(range(len(self.order)), self.order).statistic)


@dataclass(frozen=True, eq=False)
class Lesions:
    """A number of the whole model and with every lesion, prompt by prompt.

    Args:
        norms_held: None where it was not asked for.
        n_tokens: what each prompt weighs: tokens predicted, or 1 for a logit.
        residual: largest distance of the frozen network's number from the model's, nothing cut.
    """

    model_name: str
    lesions: tuple[Lesion, ...]
    unit: str
    intact: Float[np.ndarray, " prompt"]
    true: Float[np.ndarray, "prompt lesion"]
    frozen: Float[np.ndarray, "prompt lesion"]
    norms_held: Float[np.ndarray, "prompt lesion"] | None
    n_tokens: Int[np.ndarray, " prompt"]
    residual: float

    def table(self, seed: int = 0) -> pd.DataFrame:
        """Tidy, one row per lesion: lesion n_removed kendall, the change of the number by each way, and unit.

        Changes are lesioned minus intact, with 95 % intervals bootstrapped over prompts.
        """
        columns: dict[str, np.ndarray] = {}
        for name in ("true", "norms_held", "frozen"):
            if (values := getattr(self, name)) is not None:
                changes = values - self.intact[:, None]
                columns |= over_prompts(name, changes, self.n_tokens, seed)
        named = {
            "lesion": [lesion.label for lesion in self.lesions],
            "n_removed": [len(lesion.removed) for lesion in self.lesions],
            "kendall": [lesion.kendall for lesion in self.lesions],
        }
        return pd.DataFrame({**named, **columns, "unit": self.unit})


def sublayers(model: Model) -> tuple[Part, ...]:
    """Every attention and MLP as a part, in the order in which they act."""
    found = []
    for layer, block in enumerate(model.blocks):
        found += [Part(f"attn {layer}", "attn", layer)] if block.has_attn else []
        found += [Part(f"mlp {layer}", "mlp", layer)] if block.has_mlp else []
    return tuple(found)


def deletions(model: Model, by: str = "component") -> tuple[Lesion, ...]:
    """Every part deleted by itself: sublayers, and by component each head too.

    Raises:
        ConfigError: another `by`.
    """
    if by not in LEVELS:
        raise ConfigError(f"no lesions by {by[:40]!r}: there are {', '.join(LEVELS)}")
    parts: list[Part] = []
    for part in sublayers(model):
        parts.append(part)
        if by == "component" and part.kind == "attn":
            layer = part.layer or 0
            heads = range(model.n_heads_in(layer))
            parts += [Part(f"{layer}.{head}", "head", layer, head) for head in heads]
    return tuple(Lesion(part.label, (part,)) for part in parts)


def random_deletions(
    model: Model, counts: Sequence[int], n: int, seed: int = 0
) -> tuple[Lesion, ...]:
    """For each count, `n` draws of so many sublayers that are deleted together.

    Raises:
        ConfigError: more than the model has.
    """
    parts, rng = sublayers(model), np.random.default_rng(seed)
    if not all(0 <= count <= len(parts) for count in counts):
        raise ConfigError(f"{model.name} has {len(parts)} sublayers: delete 0 to {len(parts)}")
    found = []
    for count in counts:
        for _ in range(n):
            chosen = np.sort(rng.choice(len(parts), size=count, replace=False))
            found.append(Lesion(f"{count} deleted", tuple(parts[index] for index in chosen)))
    return tuple(found)


def random_swaps(model: Model, counts: Sequence[int], n: int, seed: int = 0) -> tuple[Lesion, ...]:
    """For each count, `n` orders of the sublayers after so many swaps of two random places.

    Raises:
        UnsupportedError: sublayers that cannot change places.
    """
    check_reorders(model)
    n_steps, rng = len(sublayers(model)), np.random.default_rng(seed)
    found = []
    for count in counts:
        for _ in range(n):
            order = list(range(n_steps))
            for _ in range(count if n_steps > 1 else 0):
                a, b = rng.choice(n_steps, size=2, replace=False)
                order[a], order[b] = order[b], order[a]
            found.append(Lesion(f"{count} swapped", order=tuple(order)))
    return tuple(found)


def lesions(
    model: Model,
    prompts: Prompt,
    cut: str | Sequence[Lesion] = "component",
    *,
    of: tuple[str | int, str | int | None] | None = None,
    hold_norms: bool = False,
    progress: Progress | None = None,
) -> Lesions:
    """What lesions do to a model, truly and by the frozen network.

    Args:
        cut: lesions, or "layer" / "component": each part deleted by itself.
        of: what is measured: None for the loss of the next tokens; a target and a distractor (or None) for
            their logit difference at the last position.
        hold_norms: also run the model with its norms' scales as they were.
        progress: told after every prompt how many of how many are done.

    Raises:
        UnsupportedError: a model that predicts no next token, cannot be frozen, or whose sublayers cannot
            change places.
        ConfigError: parts that the model does not have, an order that is none.
    """
    chosen = deletions(model, cut) if isinstance(cut, str) else tuple(cut)
    _check(model, chosen)
    measure = _measure(model, of)
    tokens, lengths = to_batch(model, prompts)
    rows = []
    for row, length in enumerate(lengths):
        frozen = freeze(model, tokens[row : row + 1, :length])
        rows.append(_one_prompt(frozen, chosen, measure, hold_norms=hold_norms))
        if progress is not None:
            progress(row + 1, len(lengths))
    intact, uncut, true, held, cold = (
        np.array([row[place] for row in rows]).reshape(len(rows), -1) for place in range(5)
    )
    return Lesions(
        model_name=model.name,
        lesions=chosen,
        unit=LOSS_UNIT if of is None else "logits",
        intact=intact[:, 0],
        true=true,
        frozen=cold,
        norms_held=held if hold_norms else None,
        n_tokens=np.array(lengths) - 1 if of is None else np.ones(len(lengths), dtype=int),
        residual=float(np.abs(intact - uncut).max()),
    )


def _check(model: Model, chosen: Sequence[Lesion]) -> None:
    known = {part for lesion in deletions(model) for part in lesion.removed}
    n_steps = len(sublayers(model))
    for lesion in chosen:
        if strange := [part for part in lesion.removed if part not in known]:
            raise ConfigError(f"{model.name} has no {strange[0].label} to delete")
        if lesion.order is not None:
            check_reorders(model)
            if sorted(lesion.order) != list(range(n_steps)):
                raise ConfigError(f"{list(lesion.order)} is no order of {n_steps} sublayers")


def _measure(model: Model, of: tuple[str | int, str | int | None] | None) -> Measure:
    if of is None:
        check_predicts(model)
        return next_token_loss
    target, distractor = (None if token is None else token_id(model, token) for token in of)

    def logit(
        logits: Float[Tensor, "*batch pos token"], tokens: Int[Tensor, " pos"]
    ) -> Float[Tensor, "*batch"]:
        last = logits[..., -1, :].double()
        return last[..., target] - (0 if distractor is None else last[..., distractor])

    return logit


def _one_prompt(
    frozen: FrozenNetwork, chosen: Sequence[Lesion], measure: Measure, *, hold_norms: bool
) -> tuple[float, float, list[float], list[float], list[float]]:
    """The number intact, by the frozen network uncut, and for every lesion true, norms held, frozen."""
    model, tokens = frozen.model, frozen.run.tokens[0]

    def by_frozen(stream: Tensor) -> float:
        logits = capped(model, frozen_logits(frozen, stream, is_whole=True))
        return float(measure(logits, tokens))

    def by_model(held: bool) -> list[float]:
        found: list[float] = []
        for start in range(0, len(chosen), BATCH):
            found += _true(frozen, chosen[start : start + BATCH], measure, held=held)
        return found

    intact = float(measure(frozen.run.logits[0], tokens))
    cold = [by_frozen(frozen_stream(frozen, lesion.removed, lesion.order)) for lesion in chosen]
    return (
        intact,
        by_frozen(frozen.levels[-1]),
        by_model(False),
        by_model(True) if hold_norms else [],
        cold,
    )


def _true(
    frozen: FrozenNetwork, chosen: Sequence[Lesion], measure: Measure, *, held: bool
) -> list[float]:
    """The number of the model itself with some lesions; deletions share one pass."""
    tokens = frozen.run.tokens[0]
    found = torch.empty(len(chosen), dtype=torch.float64)
    in_place = [index for index, lesion in enumerate(chosen) if lesion.order is None]
    if in_place:
        logits = without(frozen, [chosen[index].removed for index in in_place], hold_norms=held)
        found[in_place] = measure(logits, tokens).double().cpu()
    for index, lesion in enumerate(chosen):
        if lesion.order is not None:
            logits = reordered(frozen, lesion.order, lesion.removed, hold_norms=held)
            found[index] = measure(logits, tokens)
    return [float(number) for number in found]
