"""What the composition page asks of the library."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from app.jobs import Progress
from workbench.composition.scores import CompositionScores, composition_scores
from workbench.composition.virtual import virtual_pattern
from workbench.models.protocol import Model
from workbench.runs import run
from workbench.sites import Head
from workbench.vocabulary import token_texts
from workbench.weights import effective_weights

Given = Mapping[str, Any]
BASELINES = ("gaussian", "singular")


def composition(model: Model, given: Given, report: Progress) -> CompositionScores:
    """The composition of all pairs of heads."""
    offset = given["offset"] if model.cfg.positions == "rotary" else 0
    return composition_scores(
        effective_weights(model),
        offset=offset,
        baseline=given["baseline"],
        progress=report.counting("Composition of all pairs of heads"),
    )


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a virtual head looks on a prompt."""

    values: Float[np.ndarray, "query key"]
    tokens: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Tidy: query, key, their tokens, attention."""
        query, key = (index.ravel() for index in np.indices(self.values.shape))
        texts = np.array(self.tokens, object)
        return pd.DataFrame(
            {
                "query": query,
                "key": key,
                "query_token": texts[query],
                "key_token": texts[key],
                "attention": self.values.ravel(),
            }
        )


def pattern(model: Model, given: Given, report: Progress) -> Pattern:
    """The pattern of the chosen pair as one head, `A[head] @ A[earlier]`."""
    later, earlier = Head.parse(given["head"]), Head.parse(given["earlier"])
    sites = tuple(f"pattern.{layer}" for layer in sorted({later.layer, earlier.layer}))
    result = run(model, given["prompt"], sites=sites)
    found = virtual_pattern(result, later, earlier)
    ids = model.to_tokens(given["prompt"])[0].tolist()
    return Pattern(found.double().cpu().numpy(), tuple(token_texts(model, ids)))
