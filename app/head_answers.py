"""What the heads page computes, in a job's thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from app.analyses import Desk
from workbench.heads.cards import HeadCard, head_card
from workbench.heads.measures import HeadMeasures, head_measures
from workbench.models.protocol import Model
from workbench.sites import Head

MEASURES = "head-measures"


@dataclass(frozen=True, eq=False)
class MeasuresAnswer:
    """All measures of all heads."""

    measures: HeadMeasures

    def table(self) -> pd.DataFrame:
        """One row for each head and measure, as `HeadMeasures.long`."""
        return self.measures.long()


def measures(model: Model, asked: Mapping[str, Any], report: Desk) -> MeasuresAnswer:
    """Every measure of every head."""
    return MeasuresAnswer(head_measures(model, progress=report.counting("Measuring all heads")))


def card(model: Model, asked: Mapping[str, Any], report: Desk) -> HeadCard:
    """The card of one head, from the measures of all."""
    head = Head.parse(asked["head"])
    if head.layer >= model.cfg.n_layers or head.head >= model.n_heads_in(head.layer):
        head_card(model, head)  # refuses, before all heads are measured
    found = report.other(MEASURES, {}, measures)
    report(f"Comparing head {head} with others")
    return head_card(model, head, measures=found.measures)
