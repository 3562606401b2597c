"""Matching with both sides read through earlier heads: queries through one, keys through another.

    W_E W_OV[a] W_QK W_OV[b].T W_E.T        the term in which what a wrote is matched with what b wrote

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", the H² terms of a layer-2 QK circuit).
Scores of one input at a time cannot see it: each holds the other side to be the token itself.
"""

from dataclasses import replace
from itertools import product

import pandas as pd

from studies.induction_heads.composing import Cut, Rows
from workbench.circuits.copying import copying_score
from workbench.circuits.full import qk_circuit
from workbench.composition.matching import Input
from workbench.composition.virtual import virtual_head
from workbench.models.protocol import Model
from workbench.sites import Head
from workbench.weights import EffectiveWeights, effective_weights


def two_sided_table(model: Model, rows: Rows) -> pd.DataFrame:
    """One row per reader and pair of writers: matching of the term, 1 = every token by itself.

    For the best of each reader also how far its induction score falls when its queries, its keys, or both
    cannot read their writer: alike, and no larger together, if all of it is the one term that needs both.
    """
    weights = effective_weights(model)
    readers = [head for head in weights.heads if head.layer == 1]
    writers = [head for head in weights.heads if head.layer == 0]
    cut = Cut(model, weights, rows)
    found = []
    for reader in readers:
        matching = {
            pair: matching_through_both(weights, reader, *pair)
            for pair in product(writers, writers)
        }
        best = max(matching, key=matching.__getitem__)
        for pair, value in matching.items():
            names = {"query_through": str(pair[0]), "key_through": str(pair[1])}
            row = {"model": model.name, "reader": str(reader), **names, "matching": value}
            found.append(row | (_drops(cut, reader, *pair) if pair == best else {}))
    return pd.DataFrame(found)


def _drops(cut: Cut, reader: Head, query: Head, key: Head) -> dict[str, float]:
    queries: tuple[Head, Input] = (query, "Q")
    keys: tuple[Head, Input] = (key, "K")
    intact = float(cut.scores(reader).mean())
    return {
        "drop_queries": intact - float(cut.scores(reader, queries).mean()),
        "drop_keys": intact - float(cut.scores(reader, keys).mean()),
        "drop_both": intact - float(cut.scores(reader, queries, keys).mean()),
    }


def matching_through_both(weights: EffectiveWeights, reader: Head, query: Head, key: Head) -> float:
    """Matching where queries come through one head and keys through another."""
    through_key = virtual_head(weights, reader, key, through="K")
    through_query = virtual_head(weights, reader, query, through="Q")
    both = replace(through_query, W_K=through_key.W_K, b_K=through_key.b_K, pos_K=through_key.pos_K)
    return copying_score(qk_circuit(weights, both).eigenvalues())
