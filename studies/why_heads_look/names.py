"""Which heads of a public model write for the name that is expected, where they look, and why there.

Heads are chosen on one set of sentences and taken apart on another, of other templates and names: `largest`,
with the largest direct effect on the logit of IO minus that of S, and `looking`, with the largest of those that
look more at IO than at S1 and at S2. On the query side of the latter one head, `feeding`, is chosen likewise
and then taken out of the model.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from studies.intervals import pooled_mean
from studies.why_heads_look.sentences import Sentence
from workbench.models.protocol import Model
from workbench.paths.frozen import freeze
from workbench.paths.pairs import Shares
from workbench.paths.scores import ScoreParts, query_key, score_direction, score_parts
from workbench.paths.verify import verify
from workbench.runs import run
from workbench.sites import Head
from workbench.stream.attribution import logit_attribution
from workbench.stream.parts import Part

PLACES = ("IO", "S1", "S2")
N_SHOWN = 12


class Chosen(NamedTuple):
    """What the selection sentences single out."""

    largest: Head
    looking: Head
    feeding: Head


class Asked(NamedTuple):
    """One contrast of a head: the key looked at, and what it is compared with."""

    role: str
    key: str
    versus: str


QUESTIONS = (
    Asked("largest", "IO", "S2"),
    Asked("largest", "S2", "mean"),
    Asked("looking", "IO", "S1"),
    Asked("looking", "IO", "S2"),
)


def heads_table(model: Model, prompts: list[Sentence], seed: int) -> pd.DataFrame:
    """The heads with the largest direct effects on IO minus S, and where they look from the last token."""
    effects, patterns = [], []
    for prompt in prompts:
        found = logit_attribution(
            model, prompt.text, f" {prompt.io}", distractor=f" {prompt.s}", by="head"
        )
        frame = found.table()
        effects.append(frame[frame["kind"] == "head"].set_index("part")["value"])
        kept = run(model, prompt.text, sites=("pattern",))
        patterns.append((kept, prompt.places(kept.str_tokens[0])))
    table = pd.concat(effects, axis=1)
    order = table.mean(axis=1).sort_values(ascending=False).index
    rows = []
    for label in order[:N_SHOWN]:
        head = Head.parse(label)
        effect = _mean(table.loc[label].to_numpy(), seed)
        row = {
            "head": label,
            "effect": effect[0],
            "effect_low": effect[1],
            "effect_high": effect[2],
        }
        for name in PLACES:
            looks = [
                float(kept.pattern(head.layer)[0, head.head, -1, at[name]]) for kept, at in patterns
            ]
            row[name] = float(np.mean(looks))
        rows.append(row)
    return pd.DataFrame(rows).assign(n=len(prompts))


def chosen_heads(model: Model, heads: pd.DataFrame, prompts: list[Sentence]) -> Chosen:
    """The two heads to take apart, and what feeds the query of the second most: IO rather than S1."""
    largest = Head.parse(heads["head"].iloc[0])
    looks = heads[(heads["IO"] > heads["S1"]) & (heads["IO"] > heads["S2"])]
    looking = Head.parse(looks["head"].iloc[0])
    sums: dict[str, float] = {}
    for prompt in prompts:
        found = _asked(model, prompt, looking, Asked("looking", "IO", "S1"))
        for part, value in zip(found.query_parts, found.by_query, strict=True):
            if part.kind == "head":
                sums[part.label] = sums.get(part.label, 0.0) + float(value)
    return Chosen(largest, looking, Head.parse(max(sums, key=lambda label: sums[label])))


def _asked(model: Model, prompt: Sentence, head: Head, asked: Asked) -> ScoreParts:
    frozen = freeze(model, prompt.text)
    at = prompt.places(frozen.str_tokens)
    return score_parts(frozen, head, -1, at[asked.key], versus=at.get(asked.versus, asked.versus))


def taken_apart(
    model: Model, prompts: list[Sentence], chosen: Chosen
) -> list[tuple[int, Asked, ScoreParts]]:
    """Every question of every prompt."""
    found = []
    for index, prompt in enumerate(prompts):
        frozen = freeze(model, prompt.text)
        at = prompt.places(frozen.str_tokens)
        maps = {role: query_key(frozen, getattr(chosen, role)) for role in ("largest", "looking")}
        for asked in QUESTIONS:
            versus = at.get(asked.versus, asked.versus)
            parts = score_parts(frozen, maps[asked.role], -1, at[asked.key], versus=versus)
            found.append((index, asked, parts))
    return found


def contrasts_table(
    found: list[tuple[int, Asked, ScoreParts]], sentences: str, seed: int
) -> pd.DataFrame:
    """One row per question: the contrast, its shares, the sizes of what cancels; intervals over prompts."""
    rows = []
    for asked in QUESTIONS:
        parts = [one for _, question, one in found if question == asked]
        row: dict[str, object] = {
            "sentences": sentences,
            **asked._asdict(),
            "head": str(parts[0].head),
        }
        measures = {
            "contrast": [one.total for one in parts],
            "attention": [one.attention for one in parts],
            "sizes": [one.absolute for one in parts],
            "layer_sizes": [one.by("layer").absolute for one in parts],
            **{kind: [getattr(one.shares, kind) for one in parts] for kind in Shares._fields},
        }
        for name, values in measures.items():
            row |= dict(
                zip((name, f"{name}_low", f"{name}_high"), _mean(values, seed), strict=True)
            )
        row["share_above"] = float(np.mean([one.total > 0 for one in parts]))
        row["residual"] = max(abs(one.residual) for one in parts)
        rows.append(row | {"n": len(parts)})
    return pd.DataFrame(rows)


def parts_table(found: list[tuple[int, Asked, ScoreParts]], seed: int) -> pd.DataFrame:
    """Question, side and part: its mean with interval, and on how many prompts it is above zero."""
    rows = []
    for asked in QUESTIONS:
        parts = [one for _, question, one in found if question == asked]
        for side in ("query", "key"):
            table = pd.concat([one.side(side).set_index("part")["value"] for one in parts], axis=1)
            for label, values in table.iterrows():
                mean = _mean(values.to_numpy(float), seed)
                named = dict(zip(("value", "low", "high"), mean, strict=True))
                above = float((values > 0).mean())
                rows.append(
                    {**asked._asdict(), "side": side, "part": label, **named, "above": above}
                )
    return pd.DataFrame(rows)


def removals_table(
    model: Model, prompts: list[Sentence], chosen: Chosen, seed: int
) -> pd.DataFrame:
    """Each head of the feeding head's layer, and what IO over S1 owes to it in the query of `looking`.

    `straight` is what it adds where the query is read, `through` the sum of all paths through it, those past
    later heads and MLPs included, and `lost` what the contrast loses when the head is taken out of the model,
    all behind it recomputed.
    """
    heads = [
        Head(chosen.feeding.layer, index) for index in range(model.n_heads_in(chosen.feeding.layer))
    ]
    found: dict[Head, list[tuple[float, ...]]] = {head: [] for head in heads}
    wholes = []
    for prompt in prompts:
        frozen = freeze(model, prompt.text)
        at = prompt.places(frozen.str_tokens)
        maps = query_key(frozen, chosen.looking)
        parts = score_parts(frozen, maps, -1, at["IO"], versus=at["S1"])
        straight = dict(
            zip((part.label for part in parts.query_parts), parts.by_query, strict=True)
        )
        wholes.append(parts.total)
        asked = score_direction(frozen, maps, -1, at["IO"], side="query", versus=at["S1"])
        for head in heads:
            check = verify(frozen, asked, Part(str(head), "head", head.layer, head.head))
            looks = frozen.run.pattern(head.layer)[0, head.head, -1]
            seen = [float(looks[at[name]]) for name in PLACES]
            found[head].append(
                (*seen, float(straight[str(head)]), check.contribution, check.unfrozen)
            )
    rows = []
    for head, values in found.items():
        table = np.array(values)
        row: dict[str, object] = {"head": str(head), "reader": str(chosen.looking)}
        row["contrast"] = float(np.mean(wholes))
        row |= {name: float(table[:, column].mean()) for column, name in enumerate(PLACES)}
        for column, name in enumerate(("straight", "through", "lost"), start=len(PLACES)):
            row |= dict(
                zip(
                    (name, f"{name}_low", f"{name}_high"),
                    _mean(table[:, column], seed),
                    strict=True,
                )
            )
        rows.append(row | {"n": len(prompts)})
    return pd.DataFrame(rows)


def _mean(values: "np.ndarray | list[float]", seed: int) -> tuple[float, float, float]:
    array = np.asarray(values, float)
    return tuple(pooled_mean(array, np.ones(len(array)), seed))  # type: ignore[return-value]  # three of them
