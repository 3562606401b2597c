"""What can be read linearly from the residual stream, against control tasks that nothing but memory solves.

    accuracy     balanced, on documents held out, of ridge regression on one-hot labels
    control      the same with labels that mean nothing: the null of an accuracy
    selectivity  accuracy - mean control

(Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes"; Hewitt & Liang 2019,
"Designing and Interpreting Probes with Control Tasks", section 2.) A control of a token's own feature deals the
labels out among tokens of like frequency; one of a place's feature gives each row the labels of another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probes.configs import check_number, check_whole
from probes.contract import Cost, Probe, Progress, findings_table, silent
from probes.data import DataFacts, ProbeData
from probes.facts import ModelFacts
from probes.nulls import beside_null
from probes.reading import Dealt, Place, Rows, controls, places, recalls, resampled
from probes.token_features import OF_DOCUMENT, OF_PLACE, OF_TOKEN

FEATURES = (*OF_TOKEN, *OF_PLACE)
# Values that all features have together, and so columns of one-hot labels.
_N_VALUES = 34


@dataclass(frozen=True)
class LinearConfig:
    """How much text is read, and how often labels are dealt out anew.

    Args:
        n_prompts: rows of `n_tokens` to fit on; a third as many more are held out.
        most_depths: of a deeper model so many depths, evenly spaced, the first and the last among them; with a
            layer's end its middle is read.
        ridge: penalty, per observation, on standardised streams.
    """

    n_prompts: int = 48
    n_tokens: int = 64
    most_depths: int = 32
    n_controls: int = 49
    ridge: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("n_prompts", self.n_prompts, 4, 100_000)
        check_whole("n_tokens", self.n_tokens, 8, 100_000)
        check_whole("most_depths", self.most_depths, 1, 1000)
        check_whole("n_controls", self.n_controls, 2, 10_000)
        check_number("ridge", self.ridge, 1e-9, 1e9)
        check_whole("seed", self.seed, 0, 2**31 - 1)


class LinearProbes(Probe):
    """Which features of tokens and places each depth's stream tells."""

    name = "linear-probes"
    title = "Linear probes: what the stream tells"
    version = 2
    question = (
        "Which features of a token, and of where it stands, can be read linearly at each depth?"
    )
    method = (
        "Ridge regression on one-hot labels Y, `W = (XᵀX + λ n I)⁻¹ XᵀY`, from the standardised stream X "
        "after the embedding, between each layer's attention and MLP (`resid_mid`) and after each layer "
        "(scikit-learn); `layer` is the depth, 0 for the embedding and l + 1 in layer l. The largest output is "
        "the guess. On documents held out, "
        "`accuracy = mean over values of (right guesses / places with the value)`, and "
        "`selectivity = accuracy − mean accuracy of controls`. Control tasks, the null's mean and spread: "
        "labels of a token's own features dealt out anew among tokens of like frequency; labels of places "
        "taken from another row (positions: shuffled within the row). p of token features is the rank of the "
        "accuracy among its controls, two-sided. Bracket depth and indentation are the whole document's. "
        "Intervals draw held-out documents again. Sources: Alain & Bengio 2016; Hewitt & Liang 2019, section 2."
    )
    limits = (
        "That something can be read does not mean that the model reads it. An untrained network passes tokens "
        "on as well, so features of places are decodable there too: they have a control, but no p. Of a model "
        f"with more than `most_depths` depths ({LinearConfig.most_depths} unless set) only so many are read, "
        "evenly spaced; those between are left out. Brackets are counted in strings and comments too. Rows "
        "whose text is not found in their document, as with tokenizers that drop case or spaces, have neither "
        "bracket depth nor indentation."
    )
    needs = (
        "Sites resid_pre, resid_mid and resid_post; text, two documents or more; transformers and "
        "encoders with a tokenizer."
    )
    kind = "data"
    Config = LinearConfig
    draws = "n_controls"

    def refuses(self, facts: ModelFacts) -> str:
        """No stream, or no text."""
        if facts.kind == "mlp":
            return f"it has no residual stream: {facts.described}"
        if not facts.n_layers:
            return f"it has no layers whose stream could be read: {facts.described}"
        return "" if facts.has_tokenizer else f"it reads no text: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: LinearConfig) -> Cost:
        """The forward pass; at each place one solution for as many labels as there are controls."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = 1.34 * config.n_prompts * n_tokens
        n_depths = min(config.most_depths, facts.n_layers + 1)
        has_middle = facts.has_attention and facts.has_mlp and not facts.is_parallel
        n_places = n_depths + has_middle * (n_depths - 1)
        targets = _N_VALUES * (1 + config.n_controls)
        forward = positions * 2 * facts.n_params / 2.5e10
        one = positions * facts.d_model * (facts.d_model + targets) * 2 / 2e10
        scored = positions * targets * 4e-8
        held = positions * (n_places * facts.d_model * 4 + facts.d_model * 24 + targets * 24)
        return Cost(0.5 + forward + n_places * (one + scored), held + 1e8)

    def run(
        self, model: Any, data: ProbeData, config: LinearConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """Accuracy and selectivity of every feature at every depth; `layer` is the depth, 0 the embedding."""
        halves, chosen = data.split(config.seed), places(model, config.most_depths)
        sizes = (config.n_prompts, max(2, config.n_prompts // 3))
        train, test = (
            Rows.read(model, half, (size, config.n_tokens), chosen, config.seed)
            for half, size in zip((halves.train, halves.held_out), sizes, strict=True)
        )
        rows: dict[str, list[dict[str, Any]]] = {feature: [] for feature in FEATURES}
        groups = _groups(train, test, config)
        for index, place in enumerate(chosen):
            progress(index / len(chosen), f"{place[1]}, depth {place[0]}")
            for own, held_out, dealt in groups:
                streams = (own.streams[place], held_out.streams[place])
                found = recalls(*streams, dealt, config.ridge, held_out.document)
                for feature, recall in found.items():
                    rows[feature] += _rows(feature, place, recall, len(held_out.document), config)
        return findings_table(row for of in rows.values() for row in of)


def _groups(
    train: Rows, test: Rows, config: LinearConfig
) -> list[tuple[Rows, Rows, dict[str, Dealt]]]:
    """Rows to fit and to test on with the labels that they have; one group where all rows have all."""
    split: list[tuple[Rows, Rows, tuple[str, ...]]] = [(train, test, FEATURES)]
    if not (train.is_placed.all() and test.is_placed.all()):
        others = tuple(name for name in FEATURES if name not in OF_DOCUMENT)
        split = [(train, test, others), (train.placed(), test.placed(), OF_DOCUMENT)]
    groups = [
        (own, held_out, _dealt(features, own, held_out, config))
        for own, held_out, features in split
    ]
    return [group for group in groups if group[2]]


def _dealt(
    features: tuple[str, ...], train: Rows, test: Rows, config: LinearConfig
) -> dict[str, Dealt]:
    """Labels and controls of each feature of whose values the text shows two or more."""
    found = {}
    for feature in features:
        known = np.unique(train.labels[feature])
        if len(np.intersect1d(known, test.labels[feature])) > 1:
            found[feature] = controls(feature, train, test, config.n_controls, config.seed)
    return found


def _rows(
    feature: str,
    place: Place,
    recall: Mapping[str, Float[np.ndarray, "..."] | Int[np.ndarray, "..."]],
    n: int,
    config: LinearConfig,
) -> Iterator[dict[str, Any]]:
    accuracy, null = float(recall["accuracy"][0]), recall["accuracy"][1:]
    spread = resampled(recall["right"], recall["seen"], config.seed)
    common = {
        "layer": place[0],
        "site": place[1],
        "item": feature,
        "n": n,
        "seed": config.seed,
        "unit": "balanced accuracy",
    }
    beside = beside_null(accuracy, null)
    if feature in OF_PLACE:
        # A network that has learnt nothing passes them on too: ranks among their controls are no p.
        beside["p"] = np.nan
    yield {"measure": "accuracy", **beside, **spread, **common}
    chance = beside["null_mean"]
    yield {
        "measure": "selectivity",
        "value": accuracy - chance,
        "low": spread["low"] - chance,
        "high": spread["high"] - chance,
        **common,
    }


PROBE = LinearProbes()
