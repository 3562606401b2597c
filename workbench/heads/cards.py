"""One head's card: behaviour, weights and direct effect together, and where they disagree.

The measures are those of `workbench.heads.measures`, each with its interval or its chance level. Beside them
stand the heads that this one composes with most, and attention by distance next to the part of the score that
only position decides (`workbench.circuits.positions`).

Weights can say what a head does not do on prompts, and prompts show what no single circuit says. A flag is a
sentence that names such a case. A behaviour counts as clear as in `workbench.heads.behaviours.badges`, a weight
measure beyond 3 standard deviations of random heads, a match of tokens above ½.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.circuits.factors import TABLES
from workbench.circuits.positions import score_by_offset
from workbench.composition.matching import INPUTS, Matching, Pair, can_match_values
from workbench.composition.scores import CompositionScores
from workbench.errors import ConfigError
from workbench.heads.behaviours import Badge
from workbench.heads.measures import HeadMeasures, head_measures
from workbench.models.protocol import Model
from workbench.scoring import Progress
from workbench.sites import Head
from workbench.weights import EffectiveWeights, effective_weights

N_PARTNERS, MIN_CELLS = 3, 8
CLEAR_Z, CLEAR_MATCHING, CLEAR_SCORE = 3.0, 0.5, 0.3
PARTNER_COLUMNS = [
    "direction",
    "through",
    "partner",
    "score",
    "chance",
    "z",
    "matching",
    "matching_std",
]
Row = dict[str, float]


@dataclass(frozen=True, eq=False)
class HeadCard:
    """What is known of one head.

    Args:
        frame: its measures.
        partners: the heads that it composes with most: direction ("in": it reads them), through, partner,
            score, chance, z, matching, matching_std.
        kernel: attention at each distance back, and content_free, the score that position alone gives there
            (NaN where positions give none).
        absent: what this model has no measure of, and why.
        flags: where behaviour and weights disagree, a sentence each.
    """

    model_name: str
    head: Head
    frame: pd.DataFrame
    partners: pd.DataFrame
    kernel: pd.DataFrame
    badges: tuple[Badge, ...]
    absent: tuple[str, ...]
    flags: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Tidy: layer, head, aspect, measure, value, low, high, chance, null_std, two percentiles, unit."""
        return self.frame.copy()


def head_card(
    model: Model,
    head: Head,
    *,
    measures: HeadMeasures | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadCard:
    """One head's measures, partners and kernel, with flags where they disagree.

    Args:
        measures: those of all heads, if they are there already; default made on random repeats.
        progress: told how many hundredths of the measures are done.

    Raises:
        SiteError: no such head.
        ConfigError: measures of another model.
        UnsupportedError: as `workbench.heads.measures.head_measures`.
    """
    weights = effective_weights(model)
    weights.head(head)  # refuses early
    if measures is None:
        measures = head_measures(model, seed=seed, progress=progress)
    if measures.model_name != model.name:
        raise ConfigError(f"these are measures of {measures.model_name}, the model is {model.name}")
    card = HeadCard(
        model_name=model.name,
        head=head,
        frame=measures.of(head),
        partners=_partners(weights, head, measures.composition),
        kernel=_kernel(weights, head, measures.kernel),
        badges=tuple(measures.badges.get(head, [])),
        absent=measures.absent,
    )
    previous = {
        str(other)
        for other, shown in measures.badges.items()
        if any(badge.behaviour == "previous-token" for badge in shown)
    }
    return replace(card, flags=tuple(_flags(card, previous)))


def _kernel(weights: EffectiveWeights, head: Head, kernels: pd.DataFrame) -> pd.DataFrame:
    rows = kernels[(kernels["layer"] == head.layer) & (kernels["head"] == head.head)]
    rows = rows.reset_index(drop=True)
    known = (*TABLES, "rotary")
    if weights.cfg.norm_position == "post" or weights.cfg.positions not in known:
        return rows.assign(content_free=np.nan)
    scores = score_by_offset(weights, head, rows["offset"].tolist()).table()
    return rows.assign(content_free=scores["content_free"].to_numpy())


def _partners(
    weights: EffectiveWeights, head: Head, scores: CompositionScores | None
) -> pd.DataFrame:
    if scores is None:
        return pd.DataFrame(columns=PARTNER_COLUMNS)
    shared, own, rows = Matching(weights), scores.heads.index(head), []
    for through in INPUTS:
        cells = list(_strongest(scores.z[through], own))
        pairs = [Pair(scores.heads[writer], scores.heads[reader]) for writer, reader in cells]
        matching = np.full(len(cells), np.nan)
        if through != "V" or can_match_values(weights):
            matching = shared.scores(pairs, through, scores.offset)
        for cell, pair, matched in zip(cells, pairs, matching, strict=True):
            is_in = cell[1] == own
            numbers = (
                scores.scores[through][cell],
                scores.null[through].mean[cell],
                scores.z[through][cell],
                matched,
                scores.matching_std[through],
            )
            partner = str(pair.writer if is_in else pair.reader)
            rows.append(("in" if is_in else "out", through, partner, *numbers))
    return pd.DataFrame(rows, columns=PARTNER_COLUMNS)


def _strongest(z: Float[np.ndarray, "writer reader"], own: int) -> Iterator[tuple[int, int]]:
    """The pairs in which a head reads most strongly, then those in which it is read."""
    for other in np.argsort(-z[:, own])[:N_PARTNERS]:
        if np.isfinite(z[other, own]):
            yield int(other), own
    for other in np.argsort(-z[own])[:N_PARTNERS]:
        if np.isfinite(z[own, other]):
            yield own, int(other)


def _flags(card: HeadCard, previous: set[str]) -> Iterator[str]:
    """Each disagreement as a sentence.

    Args:
        previous: labels of the heads that clearly attend to the previous token.
    """
    numbers = ["value", "low", "high", "chance", "null_std"]
    row = card.frame.set_index("measure")[numbers].to_dict("index")
    shown = {badge.behaviour for badge in card.badges}
    yield from _copying_flags(row, shown)
    if "K-composition in" in row:
        yield from _composition_flags(card.partners, shown, previous)
    yield from _kernel_flags(card.kernel)


def _copying_flags(row: dict[str, Row], shown: set[str]) -> Iterator[str]:
    if "copying" not in row or "OV copying" not in row:
        return
    prompts, weights, effect = row["copying"], row["OV copying"], row["direct effect"]
    z = (weights["value"] - weights["chance"]) / weights["null_std"]
    by_weights = f"OV copying {weights['value']:.2f}, z {z:.1f}"
    on_prompts = f"{prompts['value']:.2f}, {prompts['low']:.2f} to {prompts['high']:.2f}"
    if z > CLEAR_Z and prompts["low"] <= 0:
        resting = " It rests on the first token there." if "first-token" in shown else ""
        yield (
            f"Its weights copy ({by_weights}), but on the prompts the tokens that it attends to are not raised "
            f"above the others ({on_prompts}; chance 0).{resting}"
        )
    if z < CLEAR_Z and prompts["low"] > 0 and prompts["value"] >= CLEAR_SCORE:
        yield (
            f"It raises the tokens that it attends to ({on_prompts}; chance 0), but its weights do not copy "
            f"over the whole vocabulary ({by_weights})."
        )
    if "induction" in shown and z < -CLEAR_Z:
        yield (
            f"It attends as an induction head does, but its weights suppress what it attends to ({by_weights})."
        )
    if "induction" in shown and effect["high"] < 0:
        yield (
            "It attends to the token that should come next, but lowers its logit "
            f"({effect['value']:.2f} logits, {effect['low']:.2f} to {effect['high']:.2f})."
        )


def _composition_flags(
    partners: pd.DataFrame, shown: set[str], previous: set[str]
) -> Iterator[str]:
    keys = partners[(partners["direction"] == "in") & (partners["through"] == "K")]
    clear = keys[(keys["z"] > CLEAR_Z) & (keys["matching"] > CLEAR_MATCHING)]
    through_previous = clear[clear["partner"].isin(previous)]
    if "induction" in shown and through_previous.empty:
        yield (
            "It attends as an induction head does, but none of the heads that its keys read most is a "
            "previous-token head whose token they match: it may go by position, or through several heads."
        )
    if (
        "induction" not in shown
        and len(keys)
        and keys["partner"].iloc[0] in set(through_previous["partner"])
    ):
        best = through_previous.iloc[0]
        yield (
            f"Its keys read the previous-token head {best['partner']} most of all (z {best['z']:.1f}, matching "
            f"{best['matching']:.2f}), as an induction head's do, but it shows no induction attention."
        )


def _kernel_flags(kernel: pd.DataFrame) -> Iterator[str]:
    seen = kernel[kernel["cells"] >= MIN_CELLS]
    if seen.empty or seen["content_free"].isna().all():
        return
    looks, alone = seen.loc[seen["value"].idxmax()], seen.loc[seen["content_free"].idxmax()]
    is_clear = looks["low"] > 2 * looks["chance"] and looks["value"] >= CLEAR_SCORE
    if is_clear and looks["offset"] != alone["offset"]:
        yield (
            f"It attends {looks['offset']:.0f} back ({looks['value']:.2f}), but position alone would score "
            f"highest {alone['offset']:.0f} back: tokens decide."
        )
