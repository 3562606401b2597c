"""Whether skip-trigrams occur in text, and whether the head helps there: weights checked against behaviour.

    rate    of out right after destination, where source stands anywhere before in the same context
    chance  of out right after destination, whatever stands before
    effect  log p(out) as the head is, minus log p(out) with the source's keys hidden from the destination
    gain    the same of the token that really follows: what attending to the source saves in loss

How a source is hidden: `workbench.trigrams.effects`. Intervals (95 %) of rates are Wilson's, those of effects
Student's; both take positions for independent, which positions of one file are not quite.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy import stats

from workbench.errors import ConfigError, SiteError, UnsupportedError
from workbench.models.protocol import Model
from workbench.scoring import CONFIDENCE, Progress
from workbench.sites import Head
from workbench.trigrams.contexts import PADDING, Text, contexts
from workbench.trigrams.effects import Effect, Place, hiding_effects
from workbench.trigrams.listing import SkipTrigrams

COUNTED = ("n", "n_followed", "rate", "low", "high", "chance", "n_destination")
MEASURED = (
    *("n_measured", "attended", "effect", "effect_low", "effect_high"),
    *("gain", "gain_low", "gain_high"),
)
Drawn = dict[tuple[int, int], list[int]]


@dataclass(frozen=True, eq=False)
class Occurrences:
    """How often listed skip-trigrams occur in a text and what hiding their source does there.

    Args:
        n_tokens: tokens of all contexts, those that begin them included.
        context: longest stretch within which a source counts.
    """

    label: str
    model_name: str
    n_tokens: int
    context: int
    seed: int
    frame: pd.DataFrame

    @property
    def share_unseen(self) -> float:
        """Share of the list whose source never comes before its destination; NaN of an empty list."""
        return float((self.frame["n"] == 0).mean())

    @property
    def share_never_followed(self) -> float:
        """Share of the list that never occurs whole, out included; NaN of an empty list."""
        return float((self.frame["n_followed"] == 0).mean())

    def table(self) -> pd.DataFrame:
        """Tidy: the columns of the list's own table, then what was counted and what was measured.

        Counted: n (destinations with the source before), n_followed (by out), rate, low, high, chance,
        n_destination. Measured, in nats, NaN where nothing was: n_measured (drawn from n), attended (the head's
        attention on the source), effect, effect_low, effect_high, gain, gain_low, gain_high.
        """
        return self.frame.copy()


def occurrences(
    model: Model,
    trigrams: SkipTrigrams,
    *,
    tokens: Text | None = None,
    n_measured: int = 16,
    seed: int = 0,
    progress: Progress | None = None,
) -> Occurrences:
    """Counts of every listed trigram in a text, against chance, and the effect of its source on what follows.

    Args:
        tokens: text or token ids, cut by `workbench.trigrams.contexts` into contexts of at most 256
            tokens; or contexts, as rows of ids. Default the bundled held-out text.
        n_measured: most positions of each source and destination at which the source is hidden, at the cost of
            two forward passes each; 0 only counts.
        seed: draws the positions.
        progress: told after every batch how many positions of how many are done.

    Raises:
        PromptError: an empty text, ids outside the vocabulary, or text without a tokenizer.
        ConfigError: trigrams of another model, or settings that cannot be meant.
        SiteError: no such head.
        UnsupportedError: a model that is not causal; a virtual head, which has no pattern to edit.
    """
    if trigrams.model_name != model.name:
        raise ConfigError(f"trigrams of {trigrams.model_name} cannot be measured in {model.name}")
    for name, value in (("n_measured", n_measured), ("seed", seed)):
        if not isinstance(value, int) or value < 0:
            raise ConfigError(f"{name} must be a whole number from 0, not {value!r:.40}")
    if not model.cfg.causal:
        raise UnsupportedError(
            f"{model.name} sees what follows: nothing there comes after a source"
        )
    head = _real_head(model, trigrams.label) if n_measured else None
    rows = contexts(model, tokens)
    places = _places(rows, trigrams, model.cfg.d_out)
    drawn = _drawn(places, n_measured, seed)
    effects: list[Effect] = []
    if head is not None:
        effects = hiding_effects(model, head, _questions(places, trigrams, drawn), progress)
    parts = (trigrams.table(), _counts(places, trigrams), _measurements(trigrams, drawn, effects))
    return Occurrences(
        label=trigrams.label,
        model_name=model.name,
        n_tokens=int((rows != PADDING).sum()),
        context=rows.shape[1],
        seed=seed,
        frame=pd.concat(parts, axis=1),
    )


@dataclass(frozen=True, eq=False)
class _Places:
    """Positions of destinations that something predictable follows, by number `row * width + pos`."""

    rows: Int[np.ndarray, "row pos"]
    of_destination: dict[int, Int[np.ndarray, " _"]]
    of_pair: dict[tuple[int, int], Int[np.ndarray, " _"]]

    def share(self, places: Int[np.ndarray, " place"], out: int) -> tuple[int, int]:
        """How many places there are, and how many of them `out` follows."""
        return len(places), int((self.rows.flat[places + 1] == out).sum())


def _places(rows: Int[np.ndarray, "row pos"], trigrams: SkipTrigrams, d_out: int) -> _Places:
    following = np.column_stack([rows[:, 1:], np.full(len(rows), PADDING)])
    is_place = (following >= 0) & (following < d_out)
    of_destination = {
        token: np.flatnonzero(is_place & (rows == token))
        for token in np.unique(trigrams.destination).tolist()
    }
    of_pair = {}
    pairs = {(source, destination) for source, destination, _ in trigrams.triples}
    for source in {source for source, _ in pairs}:
        seen = np.logical_or.accumulate(rows == source, axis=1)
        # Before the destination: a token is no source of itself.
        before = np.column_stack([np.zeros(len(rows), dtype=bool), seen[:, :-1]]).ravel()
        for destination in {token for first, token in pairs if first == source}:
            places = of_destination[destination]
            of_pair[source, destination] = places[before[places]]
    return _Places(rows, of_destination, of_pair)


def _counts(places: _Places, trigrams: SkipTrigrams) -> pd.DataFrame:
    records = []
    for source, destination, out in trigrams.triples:
        n, n_followed = places.share(places.of_pair[source, destination], out)
        n_destination, n_out = places.share(places.of_destination[destination], out)
        rate = low = high = np.nan
        if n:
            rate = n_followed / n
            low, high = stats.binomtest(n_followed, n).proportion_ci(CONFIDENCE, method="wilson")
        records.append(
            {
                "n": n,
                "n_followed": n_followed,
                "rate": rate,
                "low": low,
                "high": high,
                "chance": n_out / n_destination if n_destination else np.nan,
                "n_destination": n_destination,
            }
        )
    return pd.DataFrame(records, columns=list(COUNTED))


def _drawn(places: _Places, n: int, seed: int) -> Drawn:
    """At most n places of each pair; a pair's do not depend on what else is listed."""
    return {
        pair: sorted(
            np.random.default_rng([seed, *pair])
            .choice(found, size=min(n, len(found)), replace=False)
            .tolist()
        )
        for pair, found in places.of_pair.items()
    }


def _questions(places: _Places, trigrams: SkipTrigrams, drawn: Drawn) -> list[Place]:
    """What is asked at every drawn place: the outs of all trigrams of the pair, then what really follows."""
    outs: dict[tuple[int, int], list[int]] = {pair: [] for pair in drawn}
    for source, destination, out in trigrams.triples:
        outs[source, destination].append(out)
    width = places.rows.shape[1]
    return [
        Place(
            places.rows[at // width, : at % width + 1],
            source,
            (*outs[source, destination], int(places.rows.flat[at + 1])),
        )
        for (source, destination), found in drawn.items()
        for at in found
    ]


def _measurements(trigrams: SkipTrigrams, drawn: Drawn, effects: list[Effect]) -> pd.DataFrame:
    """Means over each trigram's places; `effects` answers `_questions`."""
    waiting = iter(effects)
    of_pair = {pair: [next(waiting) for _ in found] for pair, found in drawn.items() if effects}
    n_asked = dict.fromkeys(drawn, 0)
    records = []
    for source, destination, _ in trigrams.triples:
        answers = of_pair.get((source, destination), [])
        at = n_asked[source, destination]
        n_asked[source, destination] += 1
        effect, effect_low, effect_high = _mean([answer.effects[at] for answer in answers])
        gain, gain_low, gain_high = _mean([answer.effects[-1] for answer in answers])
        records.append(
            {
                "n_measured": len(answers),
                "attended": _mean([answer.attended for answer in answers])[0],
                "effect": effect,
                "effect_low": effect_low,
                "effect_high": effect_high,
                "gain": gain,
                "gain_low": gain_low,
                "gain_high": gain_high,
            }
        )
    return pd.DataFrame(records, columns=list(MEASURED))


def _mean(values: list[float]) -> tuple[float, float, float]:
    """Mean and its interval; NaN where there are too few."""
    if len(values) < 2:
        return (values[0] if values else np.nan), np.nan, np.nan
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = spread * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return mean, mean - half, mean + half


def _real_head(model: Model, label: str) -> Head:
    if "∘" in label:
        raise UnsupportedError(
            f"{label} is a virtual head: it has no scores of its own to hide a source from. "
            "n_measured=0 only counts"
        )
    head = Head.parse(label)
    if head.layer >= model.cfg.n_layers or head.head >= model.n_heads_in(head.layer):
        raise SiteError(f"{model.name} has no head {label}")
    return head
