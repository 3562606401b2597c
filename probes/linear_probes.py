"""What can be read linearly from the residual stream, against control tasks that nothing but memory solves.

    accuracy     balanced, on documents held out, of ridge regression on one-hot labels
    control      the same with labels that mean nothing
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
from probes.reading import Rows, controls, recalls, resampled
from probes.token_features import OF_PLACE, OF_TOKEN


@dataclass(frozen=True)
class LinearConfig:
    """How much text is read, and how often labels are dealt out anew.

    Args:
        n_prompts: rows of `n_tokens` to fit on; a third as many more are held out.
        most_depths: of a deeper model so many depths, evenly spaced, the first and the last among them.
        ridge: penalty, per observation, on standardised streams.
    """

    n_prompts: int = 48
    n_tokens: int = 64
    most_depths: int = 5
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
    version = 1
    question = (
        "Which features of a token, and of where it stands, can be read linearly at each depth?"
    )
    method = (
        "Ridge regression on one-hot labels (scikit-learn) from the standardised stream after the embedding "
        "and after each layer; balanced accuracy on documents held out. Control tasks: labels of a token's own "
        "features dealt out anew among tokens of like frequency; labels of places taken from another row "
        "(positions: shuffled within the row). Selectivity is accuracy minus the controls' mean. p of token "
        "features is the rank of the accuracy among its controls, two-sided. Intervals draw held-out "
        "documents again. Sources: Alain & Bengio 2016; Hewitt & Liang 2019, section 2."
    )
    limits = (
        "That something can be read does not mean that the model reads it. An untrained network passes tokens "
        "on as well, so features of places are decodable there too: they have a control, but no null."
    )
    kind = "data"
    Config = LinearConfig

    def refuses(self, facts: ModelFacts) -> str:
        """No stream, or no text."""
        if facts.kind == "mlp":
            return f"it has no residual stream: {facts.described}"
        if not facts.n_layers:
            return f"it has no layers whose stream could be read: {facts.described}"
        return "" if facts.has_tokenizer else f"it reads no text: {facts.described}"

    def cost(self, facts: ModelFacts, data: DataFacts, config: LinearConfig) -> Cost:
        """The forward pass; one solution and as many scores as there are label sets."""
        n_tokens = min(config.n_tokens, facts.n_ctx)
        positions = 1.34 * config.n_prompts * n_tokens
        depths = min(config.most_depths, facts.n_layers + 1)
        forward = positions * 2 * facts.n_params / 2.5e10
        solved = depths * 7 * (positions * facts.d_model**2 + positions * 5 * facts.d_model) / 5e9
        scored = depths * 7 * config.n_controls * (positions * facts.d_model * 8 / 1e10 + 1e-3)
        held = positions * depths * facts.d_model * 4 + positions * config.n_controls * 7 * 16
        return Cost(0.5 + forward + solved + scored, held + 1e8)

    def run(
        self, model: Any, data: ProbeData, config: LinearConfig, progress: Progress = silent
    ) -> pd.DataFrame:
        """Accuracy and selectivity of every feature at every depth."""
        halves = data.split(config.seed)
        depths = np.linspace(0, model.cfg.n_layers, min(config.most_depths, model.cfg.n_layers + 1))
        chosen = [int(depth) for depth in np.unique(depths.round())]
        n_held_out = max(2, config.n_prompts // 3)
        train = Rows.read(
            model, halves.train, (config.n_prompts, config.n_tokens), chosen, config.seed
        )
        test = Rows.read(model, halves.held_out, (n_held_out, config.n_tokens), chosen, config.seed)
        rows: list[dict[str, Any]] = []
        for index, feature in enumerate((*OF_TOKEN, *OF_PLACE)):
            progress(index / 7, feature)
            rows += _feature(feature, chosen, train, test, config)
        return findings_table(rows)


def _feature(
    feature: str, depths: list[int], train: Rows, test: Rows, config: LinearConfig
) -> Iterator[dict[str, Any]]:
    """Rows of one feature; none where the text shows fewer than two of its values."""
    known = np.unique(train.labels[feature])
    if len(known) < 2 or len(np.intersect1d(known, test.labels[feature])) < 2:
        return
    dealt = controls(feature, train, test, config.n_controls, config.seed)
    for depth in depths:
        recall = recalls(
            train.streams[depth], test.streams[depth], dealt, config.ridge, test.document
        )
        yield from _rows(feature, depth, recall, len(test.document), config)


def _rows(
    feature: str,
    depth: int,
    recall: Mapping[str, Float[np.ndarray, "..."] | Int[np.ndarray, "..."]],
    n: int,
    config: LinearConfig,
) -> Iterator[dict[str, Any]]:
    accuracy, null = recall["accuracy"], recall["accuracy"][1:]
    spread = resampled(recall["right"], recall["seen"], config.seed)
    common = {
        "layer": depth,
        "site": "resid_post" if depth else "resid_pre",
        "item": feature,
        "n": n,
        "seed": config.seed,
        "unit": "balanced accuracy",
    }
    chance = float(null.mean())
    # Of a place's features the control is no null: a network that has learnt nothing passes them on.
    beside = beside_null(float(accuracy[0]), () if feature in OF_PLACE else null)
    yield {"measure": "accuracy", **beside, **spread, **common}
    yield {"measure": "control", "value": chance, **common}
    yield {
        "measure": "selectivity",
        "value": float(accuracy[0]) - chance,
        "low": spread["low"] - chance,
        "high": spread["high"] - chance,
        **common,
    }


PROBE = LinearProbes()
