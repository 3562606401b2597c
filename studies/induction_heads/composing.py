"""Which heads compose: by weights, and by what a head loses when it cannot read another.

By weights: the norm score against chance and the matching statistic (`workbench.composition`). By behaviour:
in a model without norms what a head of layer 0 writes enters the queries, keys and values of layer 1 linearly,
so it is taken out of one of them, for one reader, while all else stays:

    q' = q - (z - mean z) W_O W_Q        z of the writer, W_Q of the reader; keys and values alike

and the reader's induction score is measured again.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from studies.intervals import pooled_mean
from workbench.circuits.copying import copying_scores
from workbench.composition.matching import INPUTS, Input
from workbench.composition.scores import composition_scores
from workbench.errors import UnsupportedError
from workbench.heads.behaviours import BEHAVIOURS, head_scores, induction
from workbench.models.protocol import Model
from workbench.runs import run
from workbench.sites import Head, Site
from workbench.weights import EffectiveWeights, effective_weights

Rows = Int[Tensor, "row pos"]
SHOWN = ("previous-token", "induction")


def heads_table(model: Model, rows: Rows, seed: int) -> pd.DataFrame:
    """One row per head: previous-token and induction score with interval and chance, copying score and z.

    `two_back` is the mean attention on the token before the previous one.
    """
    scores = head_scores(model, prompts=rows, seed=seed).table()
    table = copying_scores(effective_weights(model), n_tokens=0, seed=seed).table()
    table = table[["layer", "head", "score", "z"]]
    table = table.rename(columns={"score": "copying", "z": "copying_z"})
    for behaviour in SHOWN:
        assert behaviour in BEHAVIOURS
        name = behaviour.replace("-", "_")
        columns = {"value": name} | {part: f"{name}_{part}" for part in ("low", "high", "chance")}
        chosen = scores[scores["behaviour"] == behaviour].rename(columns=columns)
        table = table.merge(chosen[["layer", "head", *columns.values()]], on=["layer", "head"])
    kept = run(model, rows, sites=("pattern",))
    back = [kept.pattern(layer).diagonal(-2, -2, -1).mean((0, 2)) for layer in range(kept.n_layers)]
    table["two_back"] = torch.cat(back).tolist()
    table.insert(0, "model", model.name)
    return table


def pairs_table(model: Model, rows: Rows, n_null: int, seed: int) -> pd.DataFrame:
    """One row per input and pair of heads: composition against chance, matching, the reader's copying, and

    how far the reader's induction score falls when it cannot read the writer there (`drop`, with interval).
    """
    weights = effective_weights(model)
    table = composition_scores(weights, n_null=n_null, seed=seed).table()
    copying = copying_scores(weights, n_tokens=0, seed=seed)
    cut = Cut(model, weights, rows)
    found = []
    for row in table[["through", "writer", "reader"]].to_dict("records"):
        writer, reader = Head.parse(row["writer"]), Head.parse(row["reader"])
        with_it, without = cut.scores(reader), cut.scores(reader, (writer, row["through"]))
        ones = np.ones(len(rows))
        drop = pooled_mean(with_it - without, ones, seed)
        found.append(
            {
                "copying": copying.value(reader),
                "induction": float(with_it.mean()),
                "drop": drop.value,
                "drop_low": drop.low,
                "drop_high": drop.high,
            }
        )
    table.insert(0, "model", model.name)
    kept = [column for column in table if not column.endswith(("_layer", "_head"))]
    return pd.concat([table[kept].drop(columns="offset"), pd.DataFrame(found)], axis=1)


class Cut:
    """Induction scores of layer 1 with inputs of one head cut off from heads of layer 0.

    Raises:
        UnsupportedError: not two layers without norms.
    """

    def __init__(self, model: Model, weights: EffectiveWeights, rows: Rows) -> None:
        if model.cfg.n_layers != 2 or model.cfg.normalization_type is not None:
            raise UnsupportedError(f"{model.name} is not two layers without norms")
        self._model, self._weights, self._rows = model, weights, rows
        self._targets = induction(rows)
        kept: list[Tensor] = []
        self._run((Site("z", 0), lambda z, hook: kept.append(z)))
        self._written = kept[0] - kept[0].mean((0, 1))
        self._intact = self.patterns(Head(1, 0), ())

    def scores(self, reader: Head, *cuts: tuple[Head, Input]) -> Float[np.ndarray, " row"]:
        """Attention on the tokens after earlier copies, per prompt.

        Args:
            cuts: each a writer, and the input of the reader that no longer hears it.
        """
        patterns = self.patterns(reader, cuts) if cuts else self._intact
        on_target = (patterns[:, reader.head] * self._targets).sum(-1)
        has_target = self._targets.any(-1)
        return ((on_target * has_target).sum(-1) / has_target.sum(-1)).double().numpy()

    def patterns(
        self, reader: Head, cuts: Sequence[tuple[Head, Input]]
    ) -> Float[Tensor, "row head query key"]:
        """Where all heads of layer 1 look."""
        kept: list[Tensor] = []
        hooks = [(Site("pattern", 1), lambda pattern, hook: kept.append(pattern))]
        hooks += [self._taken_out(reader, writer, through) for writer, through in cuts]
        self._run(*hooks)
        return kept[0]

    def _taken_out(
        self, reader: Head, writer: Head, through: Input
    ) -> tuple[Site, Callable[..., Tensor | None]]:
        weight = getattr(self._weights.head(reader), f"W_{through}")
        read = self._written[:, :, writer.head] @ (self._weights.head(writer).W_O @ weight)

        def take_out(entered: Tensor, hook: object) -> Tensor:
            entered = entered.clone()
            entered[:, :, reader.head] -= read
            return entered

        return Site(through.lower(), 1), take_out

    def _run(self, *hooks: tuple[Site, Callable[..., Tensor | None]]) -> None:
        named = [(self._model.site_hook(site), hook) for site, hook in hooks]
        with torch.no_grad(), self._model.lock, self._model.hooks(fwd_hooks=named):
            self._model(self._rows)


def strongest(pairs: pd.DataFrame) -> pd.DataFrame:
    """Per model and input: the largest z, how many pairs exceed z = 10, and the largest fall when cut."""
    rows = []
    for (model, through), table in pairs.groupby(["model", "through"], sort=False):
        top, cut = table.loc[table["z"].idxmax()], table.loc[table["drop"].idxmax()]
        rows.append(
            {
                "model": model,
                "through": through,
                "n": len(table),
                "n_above_10": int((table["z"] > 10).sum()),
                "top_pair": f"{top['writer']} → {top['reader']}",
                "top_z": top["z"],
                "top_matching": top["matching"],
                "cut_pair": f"{cut['writer']} → {cut['reader']}",
                "cut_drop": cut["drop"],
                "cut_drop_low": cut["drop_low"],
                "cut_drop_high": cut["drop_high"],
            }
        )
    assert set(pairs["through"]) == set(INPUTS)
    return pd.DataFrame(rows)
