"""Every cheap measure of every head, side by side: what it does on prompts, what its weights say, what it adds.

    behaviour   attention on previous, current, duplicate, induction and first tokens, entropy, distance
                (`workbench.heads.behaviours`); copying on prompts (`workbench.heads.effects`)
    weights     copying of the OV and matching of the QK circuit over the vocabulary
                (`workbench.circuits.copying`); strongest composition with an earlier head ("in") and a later
                one ("out"), in standard deviations of random heads (`workbench.composition.scores`); symmetry
                and ranks (`workbench.circuits.geometry`)
    effect      direct effect on the next token's logit (`workbench.heads.effects`)

What is measured on prompts has an interval, and chance is what uniform attention scores. What is computed from
weights is exact, and chance is what random weights of the same shapes give: their mean and standard deviation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from workbench.circuits.copying import Kind, copying_scores
from workbench.circuits.geometry import qk_geometry
from workbench.composition.matching import INPUTS
from workbench.composition.scores import CompositionScores, composition_scores
from workbench.errors import SiteError
from workbench.heads.behaviours import Badge, badges, head_scores
from workbench.heads.effects import direct_effects, refusal
from workbench.heads.kernels import positional_kernel
from workbench.models.protocol import Model
from workbench.prompts import check_settings, random_repeats, reach
from workbench.runs import Prompt, to_batch
from workbench.scoring import Progress
from workbench.sites import Head
from workbench.weights import EffectiveWeights, effective_weights

N_NULL, N_POS, KERNEL_POS = 100, 64, 32
PLACE = ["layer", "head"]
COLUMNS = [*PLACE, "aspect", "measure", "value", "low", "high", "chance", "null_std"]
COLUMNS += ["null_percentile", "head_percentile", "unit"]
GEOMETRY = ("symmetric share", "positive mass", "rank (participation)")
# Hundredths of the time that each stage takes.
SHARES = {
    "scores": 20,
    "direct": 20,
    "kernel": 12,
    "OV": 8,
    "QK": 8,
    "composition": 22,
    "geometry": 10,
}


@dataclass(frozen=True, eq=False)
class HeadMeasures:
    """All heads, all measures.

    Args:
        frame: one row for each head and measure.
        kernel: attention at each distance, as of `workbench.heads.kernels`.
        composition: None where heads cannot compose.
        badges: the behaviours that each head clearly shows.
        absent: what this model has no measure of, and why.
    """

    model_name: str
    frame: pd.DataFrame
    kernel: pd.DataFrame
    composition: CompositionScores | None
    badges: dict[Head, list[Badge]]
    absent: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The measures, in the order of the columns."""
        return tuple(self.frame["measure"].unique())

    def long(self) -> pd.DataFrame:
        """Tidy: layer, head, aspect, measure, value, low, high, chance, null_std, two percentiles, unit.

        null_percentile is the share of random weights with less, head_percentile that of the model's heads.
        """
        return self.frame.copy()

    def table(self) -> pd.DataFrame:
        """One row per head: layer, head, then every measure and, as "… chance", its chance level."""
        wide = self.frame.pivot(index=PLACE, columns="measure", values=["value", "chance"])
        columns = {}
        for name in self.names:
            columns[name] = wide["value", name]
            columns[f"{name} chance"] = wide["chance", name]
        return pd.DataFrame(columns).reset_index()

    def of(self, head: Head) -> pd.DataFrame:
        """The rows of one head.

        Raises:
            SiteError: no such head.
        """
        rows = self.frame[(self.frame["layer"] == head.layer) & (self.frame["head"] == head.head)]
        if rows.empty:
            raise SiteError(f"{self.model_name} has no head {head}")
        return rows.reset_index(drop=True)


def head_measures(
    model: Model,
    *,
    prompts: Prompt | None = None,
    n_prompts: int = 8,
    n_pos: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadMeasures:
    """Every cheap measure of every head, with chance.

    Args:
        prompts: what to run on; default `n_prompts` random repeats of `n_pos` tokens, of which the direct
            effect is taken only where the next token is the one that followed before.
        seed: draws prompts, bootstraps and random heads.
        progress: told how many hundredths of the work are done.

    Raises:
        UnsupportedError: a model without attention, a context too short for repeats, or a single prompt.
    """
    check_settings(n_prompts, n_pos, seed)
    weights, stage = effective_weights(model), _stages(progress)
    given: Prompt = (
        random_repeats(model, n_prompts, n_pos or min(reach(model), N_POS), seed)
        if prompts is None
        else prompts
    )
    scores = head_scores(model, prompts=given, seed=seed, progress=stage("scores"))
    frames, absent = [scores.table().assign(aspect="behaviour")], []
    if reason := refusal(model):
        absent.append(f"no copying on prompts and no direct effects: {model.name} {reason}")
    else:
        frames.append(_effects(model, given, prompts is None, seed, stage("direct")))
    kernel = positional_kernel(
        model,
        n_prompts=n_prompts,
        n_pos=min(reach(model), KERNEL_POS),
        seed=seed,
        progress=stage("kernel"),
    )
    from_weights, composition = _of_weights(weights, absent, seed, stage)
    frame = _assembled([*frames, *from_weights])
    return HeadMeasures(model.name, frame, kernel, composition, badges(scores), tuple(absent))


def _effects(
    model: Model, given: Prompt, only_repeats: bool, seed: int, told: Progress
) -> pd.DataFrame:
    tokens, lengths = to_batch(model, given)
    effects = direct_effects(
        model, tokens, lengths, only_repeats=only_repeats, seed=seed, progress=told
    )
    aspect = np.where(effects["behaviour"] == "copying", "behaviour", "effect")
    return effects.assign(aspect=aspect)


def _of_weights(
    weights: EffectiveWeights, absent: list[str], seed: int, stage: Callable[[str], Progress]
) -> tuple[list[pd.DataFrame], CompositionScores | None]:
    cfg, name, frames, composition = weights.cfg, weights.model_name, [], None
    if cfg.norm_position == "post":
        absent.append(
            f"no circuits over tokens and no composition: {name} normalises after each sum"
        )
    else:
        if cfg.d_out == cfg.d_vocab:
            frames.append(_copying(weights, "OV", seed, stage("OV")))
        else:
            absent.append(f"no copying: {name} reads {cfg.d_vocab} tokens and writes {cfg.d_out}")
        frames.append(_copying(weights, "QK", seed, stage("QK")))
        if len({head.layer for head in weights.heads}) > 1:
            told = stage("composition")
            composition = composition_scores(weights, n_null=N_NULL, seed=seed, progress=told)
            frames += list(_composition(composition))
        else:
            absent.append(f"no composition: {name} has heads in one layer only")
    geometry = qk_geometry(weights, n_null=N_NULL, seed=seed, progress=stage("geometry")).table()
    geometry = geometry[geometry["measure"].isin(GEOMETRY)]
    renamed = geometry.rename(columns={"null_mean": "chance", "percentile": "null_percentile"})
    frames.append(renamed.assign(measure=geometry["circuit"] + " " + geometry["measure"]))
    return frames, composition


def _copying(weights: EffectiveWeights, kind: Kind, seed: int, told: Progress) -> pd.DataFrame:
    scores = copying_scores(
        weights, kind=kind, n_null=N_NULL, n_tokens=0, seed=seed, progress=told
    ).table()
    names = {"score": "value", "null_mean": "chance", "percentile": "null_percentile"}
    measure = "OV copying" if kind == "OV" else "QK matching"
    return scores.rename(columns=names).assign(measure=measure, unit="Σ Re λ / Σ |λ|")


def _composition(scores: CompositionScores) -> Iterator[pd.DataFrame]:
    """The strongest partner of each head; chance is the strongest of as many random ones."""
    for through in INPUTS:
        z = scores.z[through]
        for direction, axis in (("in", 0), ("out", 1)):
            strongest = np.where(np.isfinite(z), z, -np.inf).max(axis)
            n_pairs = np.isfinite(z).sum(axis).astype(float)
            n_pairs[n_pairs == 0] = np.nan
            strongest[np.isnan(n_pairs)] = np.nan
            yield pd.DataFrame(
                {
                    "layer": [head.layer for head in scores.heads],
                    "head": [head.head for head in scores.heads],
                    "measure": f"{through}-composition {direction}",
                    "value": strongest,
                    "chance": stats.norm.ppf(0.5 ** (1 / n_pairs)),
                    "null_percentile": 100 * stats.norm.cdf(strongest) ** n_pairs,
                    "unit": "standard deviations",
                }
            )


def _assembled(frames: list[pd.DataFrame]) -> pd.DataFrame:
    aligned = [
        (frame if "aspect" in frame else frame.assign(aspect="weights"))
        .rename(columns={"behaviour": "measure"})
        .reindex(columns=COLUMNS)
        for frame in frames
    ]
    # Columns that a frame lacks are all NaN there; object columns would come of joining them as they are.
    numbers = {name: float for name in COLUMNS[4:-1]}
    whole = pd.concat([frame.astype(numbers) for frame in aligned], ignore_index=True)
    ranks = whole.groupby("measure", sort=False)["value"].rank()
    others = whole.groupby("measure", sort=False)["value"].transform("count") - 1
    whole["head_percentile"] = 100 * (ranks - 1) / others.where(others > 0)
    return whole


def _stages(progress: Progress | None) -> Callable[[str], Progress]:
    """For each stage by name, a progress that counts in hundredths of the whole."""
    names = list(SHARES)

    def stage(name: str) -> Progress:
        before = sum(SHARES[earlier] for earlier in names[: names.index(name)])

        def told(done: int, of: int) -> None:
            if progress is not None:
                progress(before + SHARES[name] * done // max(of, 1), 100)

        return told

    return stage
