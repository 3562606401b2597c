"""Why the induction head of `attn-2l` looks at the token after an earlier copy, pair of parts by pair of parts.

What is taken apart is a contrast: the score of one key minus the mean over the other keys that the query sees.
Cells `[query key]` are of three kinds, always for the same queries:

    target      the key is the token after the latest earlier copy of the query's token, and what follows the
                query is that token again: a repeat that goes on
    elsewhere   a random key that is not behind any copy
    shuffled    the target's own positions in the same tokens in random order
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from studies.intervals import pooled_mean
from workbench.heads.behaviours import induction
from workbench.models.protocol import Model
from workbench.paths.frozen import freeze
from workbench.paths.pairs import Shares
from workbench.paths.query_key import QueryKey, query_key
from workbench.paths.scores import ScoreParts, score_parts
from workbench.prompts import random_repeats
from workbench.sites import Head
from workbench.trigrams.contexts import contexts

Rows = Int[Tensor, "row pos"]
READER, WRITER = Head(1, 1), "0.1"
PAIR = ("embed", WRITER)
TARGET, ELSEWHERE, SHUFFLED = "target", "elsewhere", "shuffled"
MEASURES = ("contrast", "pair", *Shares._fields, "attention", "alone", "without", "uniform")


class Cell(NamedTuple):
    """One score that is asked for."""

    kind: str
    query: int
    key: int


def rows_of(model: Model, n_rows: int, n_pos: int, seed: int) -> dict[str, Rows]:
    """Random repeats, and rows of held-out text."""
    text = contexts(model, context=n_pos)[:-1]
    spaced = text[np.linspace(0, len(text) - 1, n_rows).astype(int)]
    return {
        "random repeats": random_repeats(model, n_rows, n_pos, seed),
        "text": torch.from_numpy(spaced),
    }


def cells_of(row: Int[Tensor, " pos"], n_queries: int, rng: np.random.Generator) -> list[Cell]:
    """Targets and keys elsewhere, for up to `n_queries` queries whose repeat goes on."""
    behind = induction(row[None])[0].numpy()
    latest = [(query, np.flatnonzero(behind[query])) for query in range(2, len(row) - 1)]
    going_on = [
        (query, int(keys[-1]))
        for query, keys in latest
        if len(keys) and keys[-1] < query and row[keys[-1]] == row[query + 1]
    ]
    chosen = rng.permutation(len(going_on))[:n_queries]
    found = []
    for query, key in (going_on[index] for index in sorted(chosen)):
        others = [other for other in range(1, query + 1) if not behind[query, other]]
        found.append(Cell(TARGET, query, key))
        found.append(Cell(ELSEWHERE, query, int(rng.choice(others))))
    return found


def measured(model: Model, rows: Rows, n_queries: int, seed: int) -> Iterator[dict[str, object]]:
    """One record per row, cell and head of the second layer; `parts` is the score taken apart."""
    rng = np.random.default_rng(seed)
    for index, row in enumerate(rows):
        cells = cells_of(row, n_queries, rng)
        shuffled = torch.cat([row[:1], row[1:][torch.from_numpy(rng.permutation(len(row) - 1))]])
        targets = [cell for cell in cells if cell.kind == TARGET]
        moved = [Cell(SHUFFLED, cell.query, cell.key) for cell in targets]
        for tokens, asked in ((row, cells), (shuffled, moved)):
            frozen = freeze(model, tokens[None])
            for head in range(model.n_heads_in(1)):
                maps = query_key(frozen, Head(1, head))
                for cell in asked:
                    parts = score_parts(frozen, maps, cell.query, cell.key, versus="mean")
                    yield {
                        "row": index,
                        "head": str(maps.head),
                        "cell": cell.kind,
                        "parts": parts,
                    } | (_facts(maps, parts))


def _facts(maps: QueryKey, parts: ScoreParts) -> dict[str, float]:
    """The pair's share of the score, and where the head would look by this pair alone, or without it."""
    place = _place(parts)
    visible = maps.is_visible[parts.query]
    scores = maps.scores[parts.query]
    pair = maps.kept[parts.query] * (
        maps.keys[1][place[1]] @ maps.queries[1][place[0], parts.query]
    )
    alone, without = (
        float(asked.masked_fill(~visible, -torch.inf).softmax(-1)[parts.key])
        for asked in (pair, scores - pair)
    )
    return parts.shares._asdict() | {
        "contrast": parts.total,
        "pair": float(parts.values[place]),
        "attention": parts.attention,
        "alone": alone,
        "without": without,
        "uniform": 1 / int(visible.sum()),
    }


def _place(parts: ScoreParts) -> tuple[int, int]:
    sides = (parts.query_parts, parts.key_parts)
    row, column = (
        [part.label for part in side].index(label) for side, label in zip(sides, PAIR, strict=True)
    )
    return row, column


def tables(
    model: Model, n_rows: int, n_pos: int, n_queries: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Both tables of `tables_of`, for random repeats and for text."""
    found = [
        tables_of(model, prompts, rows, n_queries, seed)
        for prompts, rows in rows_of(model, n_rows, n_pos, seed).items()
    ]
    return {name: pd.concat([each[name] for each in found], ignore_index=True) for name in found[0]}


def tables_of(
    model: Model, prompts: str, rows: Rows, n_queries: int, seed: int
) -> dict[str, pd.DataFrame]:
    """`repeats`: one row per head and kind of cell. `pairs`: every pair of parts at the targets of the reader.

    Intervals resample prompts.
    """
    frame = pd.DataFrame(list(measured(model, rows, n_queries, seed)))
    cells = [
        {"prompts": prompts, "head": head, "cell": cell} | _summary(group, seed)
        for (head, cell), group in frame.groupby(["head", "cell"], sort=True)
    ]
    chosen = frame[(frame["head"] == str(READER)) & (frame["cell"] == TARGET)]
    return {"repeats": pd.DataFrame(cells), "pairs": _pairs(chosen, seed).assign(prompts=prompts)}


def _summary(group: pd.DataFrame, seed: int) -> dict[str, float]:
    """Means over cells, and the pair's share of the contrast, with intervals over prompts."""
    by_row = group.groupby("row")
    counts = by_row.size().to_numpy(float)
    found: dict[str, float] = {"n_rows": len(counts), "n": len(group)}
    for name in MEASURES:
        mean = pooled_mean(by_row[name].sum().to_numpy(float), counts, seed)
        found |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    share = pooled_mean(
        by_row["pair"].sum().to_numpy(float), by_row["contrast"].sum().to_numpy(float), seed
    )
    return found | {"share": share.value, "share_low": share.low, "share_high": share.high}


def _pairs(chosen: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every pair of parts: its mean, and its share of the mean contrast."""
    first: ScoreParts = chosen["parts"].iloc[0]
    values = np.stack([parts.values.ravel() for parts in chosen["parts"]])
    rows = chosen["row"].to_numpy()
    counts = chosen.groupby("row").size().to_numpy(float)
    kinds, found = first.kinds.ravel(), []
    places = [(query, key) for query in first.query_parts for key in first.key_parts]
    whole = float(chosen["contrast"].mean())
    for index, (query, key) in enumerate(places):
        sums = pd.Series(values[:, index]).groupby(rows).sum().to_numpy(float)
        mean = pooled_mean(sums, counts, seed)
        found.append(
            {
                "query": query.label,
                "key": key.label,
                "composition": kinds[index],
                "value": mean.value,
                "low": mean.low,
                "high": mean.high,
                "share": mean.value / whole,
            }
        )
    return pd.DataFrame(found)
