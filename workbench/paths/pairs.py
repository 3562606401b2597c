"""The pairs of parts that one attention score is the sum of, as a table. Made by `workbench.paths.scores`."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from workbench.errors import ConfigError
from workbench.sites import Head
from workbench.stream.parts import Part, part_columns

Versus = int | str | None
MEAN = "mean"
SIDES = ("query", "key")
UNIT = "score"
COMPONENTS = ("head", "mlp", "attn")
GROUPS = {"component": (), "layer": ("head", "mlp"), "kind": ("head", "mlp", "bias")}
_KINDS = {"head": "heads", "mlp": "MLPs", "bias": "biases"}


class Shares(NamedTuple):
    """A score by who wrote its two sides; the four sum to it."""

    direct: float
    Q: float
    K: float
    both: float


@dataclass(frozen=True, eq=False)
class ScoreParts:
    """One score, or difference of scores, as a sum over pairs of parts.

    Args:
        versus: the key whose score is taken off; "mean": the mean over the other visible keys; None: nothing.
        is_constant: which key parts are the same for all keys that this query sees, so that softmax does not
            see them; in a difference their values are zero.
        total: the model's own number; `residual` is the sum of all pairs minus it.
        attention: after softmax.
    """

    model_name: str
    str_tokens: tuple[str, ...]
    head: Head
    query: int
    key: int
    versus: Versus
    query_parts: tuple[Part, ...]
    key_parts: tuple[Part, ...]
    values: Float[np.ndarray, "query_part key_part"]
    is_constant: Bool[np.ndarray, " key_part"]
    total: float
    residual: float
    attention: float
    unit: str = UNIT

    @property
    def label(self) -> str:
        """`score of 1.1 from 13 to 2 minus 4`."""
        return label_of(self.head, self.query, self.key, self.versus)

    @property
    def by_query(self) -> Float[np.ndarray, " query_part"]:
        """What each part adds through the query."""
        return self.values.sum(1)

    @property
    def by_key(self) -> Float[np.ndarray, " key_part"]:
        """What each part adds through the key."""
        return self.values.sum(0)

    @property
    def kinds(self) -> np.ndarray:
        """`[query_part key_part]`: direct, Q, K or both."""
        on_query, on_key = (
            np.array([part.kind in COMPONENTS for part in parts])
            for parts in (self.query_parts, self.key_parts)
        )
        return np.array(Shares._fields)[on_query[:, None] * 1 + on_key * 2]

    @property
    def shares(self) -> Shares:
        """The score by direct pairs, Q-composition, K-composition and both."""
        kinds = self.kinds
        return Shares(*(float(self.values[kinds == kind].sum()) for kind in Shares._fields))

    @property
    def constant(self) -> float:
        """How much of the number is the same for all keys."""
        return float(self.values[:, self.is_constant].sum())

    @property
    def absolute(self) -> float:
        """Sum of the sizes of all pairs."""
        return float(np.abs(self.values).sum())

    @property
    def cancellation(self) -> float:
        """Sum of the sizes over the size of the sum: 1 if nothing cancels."""
        whole = abs(float(self.values.sum()))
        return self.absolute / whole if whole else float("inf")

    def by(self, group: str) -> "ScoreParts":
        """The same with parts put together.

        Args:
            group: "component": as they are; "layer": attn 0, mlp 0; "kind": heads, MLPs, biases.

        Raises:
            ConfigError: another word.
        """
        if group not in GROUPS:
            raise ConfigError(f"no parts by {group[:40]!r}: there are {', '.join(GROUPS)}")
        queries, by_query = _grouped(self.query_parts, group)
        keys, by_key = _grouped(self.key_parts, group)
        varies = np.array(
            [not self.is_constant[[key is part for key in by_key]].all() for part in keys]
        )
        return replace(
            self,
            query_parts=queries,
            key_parts=keys,
            values=_indicator(queries, by_query) @ self.values @ _indicator(keys, by_key).T,
            is_constant=~varies,
        )

    def table(self) -> pd.DataFrame:
        """Tidy, one row per pair: composition value unit is_constant, and who wrote each side."""
        rows, columns = (axis.ravel() for axis in np.indices(self.values.shape))
        sides = [
            _named("query", [self.query_parts[row] for row in rows]),
            _named("key", [self.key_parts[column] for column in columns]),
        ]
        return pd.concat(sides, axis=1).assign(
            composition=self.kinds.ravel(),
            is_constant=self.is_constant[columns],
            value=self.values.ravel(),
            unit=self.unit,
        )

    def top(self, k: int) -> pd.DataFrame:
        """The k largest pairs by size, and the rest of each sign as one row each: the sum is kept."""
        return _topped(self.table()[["query", "key", "composition", "value"]], "query", k)

    def side(self, side: str, k: int | None = None) -> pd.DataFrame:
        """What enters through one side, largest first: part kind value; with k, the rest summed by sign."""
        parts, values = {
            "query": (self.query_parts, self.by_query),
            "key": (self.key_parts, self.by_key),
        }[side]
        frame = part_columns(parts)[["part", "kind"]].assign(value=values)
        return _topped(frame, "part", len(frame) if k is None else k)


def label_of(head: Head, query: int, key: int, versus: Versus) -> str:
    """`score of 1.1 from 13 to 2 minus 4`."""
    less = (
        ""
        if versus is None
        else " minus the other keys' mean"
        if versus == MEAN
        else f" minus {versus}"
    )
    return f"score of {head} from {query} to {key}{less}"


def _group_of(part: Part, group: str) -> Part:
    if part.kind not in GROUPS[group]:
        return part
    if group == "kind":
        return Part(_KINDS[part.kind], part.kind)
    return Part(f"attn {part.layer}", "attn", part.layer) if part.kind == "head" else part


def _grouped(parts: tuple[Part, ...], group: str) -> tuple[tuple[Part, ...], list[Part]]:
    """The groups, and each part's own."""
    own = [_group_of(part, group) for part in parts]
    groups = tuple(dict.fromkeys(own))
    shared = {part: part for part in groups}
    return groups, [shared[part] for part in own]


def _indicator(groups: tuple[Part, ...], own: list[Part]) -> Float[np.ndarray, "group part"]:
    return np.array([[float(part == group) for part in own] for group in groups])


def _topped(frame: pd.DataFrame, name: str, k: int) -> pd.DataFrame:
    """The k largest rows by size, then one row for all others of each sign."""
    order = np.argsort(-np.abs(frame["value"].to_numpy()), kind="stable")
    listed, rest = frame.iloc[order[:k]], frame.iloc[order[k:]]
    sums = [
        {name: f"{int(chosen.sum())} others {sign} 0", "value": rest["value"][chosen].sum()}
        for sign, chosen in (("above", rest["value"] > 0), ("below", rest["value"] < 0))
        if chosen.any()
    ]
    whole = [*listed.to_dict("records"), *sums]
    return pd.DataFrame(whole, columns=frame.columns)


def _named(side: str, parts: list[Part]) -> pd.DataFrame:
    """Columns `query query_kind query_layer query_head`, or of the key."""
    frame = part_columns(parts)[["part", "kind", "layer", "head"]]
    return frame.set_axis([side, *(f"{side}_{name}" for name in frame.columns[1:])], axis=1)
