"""Full QK and OV circuits over the vocabulary, as factors: the matrix itself is never formed.

    OV  M = E W_V W_O W_U                         [source out]   what attending to `source` adds to `out`
    QK  N = (E W_Q + σ b_Q) R(Δ) (E W_K + σ b_K)ᵀ / scale        [query key]   the score before softmax

(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", "Splitting attention head terms into
the query-key and output-value circuits".) E is the token embedding, or the position embedding for rows or
columns of positions. Weights are folded (`workbench.weights`). Eigenvalues come from the small product, since
`left @ right.T` and `right.T @ left` share all that are not zero.

Gauge: softmax sees no constant. So by default OV is relative to the mean output token and QK to the mean key
(`centre`): columns then have mean zero in every row.

Biases: `b_Q` adds a preference for keys whatever the query, so it stands in the rows of query tokens; positions
do not repeat it, and the four blocks of tokens and positions add up to the score. `b_K` adds the same to every
key, so centring removes it; without centring it stands in the columns of key tokens. With rotary positions what
centring removes still depends on the offset: `workbench.circuits.positions` gives it.

Scales: a norm divides what it reads by σ, which no weight can hold, so entries are in units × σ for every norm
on the way: `score × σ²` (query and key), `logits × σ²` (the source's norm and the final one; one more where a
norm follows the head). A norm on queries and keys divides the same σ away, and leaves one in its place. A bias
is not divided; it stands here times σ̄, the root mean square of the tokens' own σ, as at the first layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from workbench.circuits.factors import (
    Axis,
    centred,
    check_offset,
    check_token_circuits,
    check_unembedding,
    keys,
    of_head,
    ov_unit,
    position_table,
    qk_unit,
    queries,
    sorted_eigenvalues,
)
from workbench.circuits.singular import Singular, singular_directions
from workbench.errors import ConfigError, PromptError, UnsupportedError
from workbench.rotary import rotate
from workbench.scoring import Progress
from workbench.sites import Head
from workbench.weights import EffectiveWeights, HeadWeights

if TYPE_CHECKING:
    from workbench.circuits.top_entries import TopEntries

Indices = Sequence[int] | Int[Tensor, " n"]
_ALIKE = (
    "model_name",
    "kind",
    "shape",
    "row_kind",
    "column_kind",
    "offset",
    "unit",
    "is_centred",
)


@dataclass(frozen=True, eq=False)
class Circuit:
    """The matrix `left @ right.T`, kept as its factors.

    Args:
        label: `1.4`, `1.4∘0.3`, `sum of 4 heads`.
        kind: of OV, rows are the token attended to and columns the logits it raises; of QK, queries and keys.
        unit: what an entry measures.
        offset: query position minus key position, with rotary positions; else None.
        is_centred: whether each row has mean zero over its columns.
    """

    label: str
    kind: Literal["OV", "QK"]
    left: Float[Tensor, "row rank"]
    right: Float[Tensor, "column rank"]
    row_kind: Axis
    column_kind: Axis
    row_axis: str
    column_axis: str
    unit: str
    offset: int | None
    is_centred: bool
    model_name: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.left), len(self.right)

    @property
    def rank(self) -> int:
        """Width of the factors: the largest rank that the matrix can have."""
        return self.left.shape[1]

    def row(self, index: int) -> Float[Tensor, " column"]:
        """One row, in `unit`.

        Raises:
            PromptError: no such token or position.
        """
        return self.right @ self.left[self._checked([index], 0)[0]]

    def column(self, index: int) -> Float[Tensor, " row"]:
        """One column, in `unit`.

        Raises:
            PromptError: no such token or position.
        """
        return self.left @ self.right[self._checked([index], 1)[0]]

    def block(self, rows: Indices, columns: Indices) -> Float[Tensor, "rows columns"]:
        """Chosen rows and columns, in `unit`.

        Raises:
            PromptError: no such token or position.
        """
        return self.left[self._checked(rows, 0)] @ self.right[self._checked(columns, 1)].T

    def diagonal(self) -> Float[Tensor, " row"]:
        """The entry of every token or position with itself, in `unit`.

        Raises:
            UnsupportedError: rows and columns are not the same things.
        """
        self._check_square("a diagonal")
        return (self.left * self.right).sum(-1)

    def eigenvalues(self) -> Complex[Tensor, " rank"]:
        """All eigenvalues that can differ from zero, largest first; positive ones copy or match.

        Raises:
            UnsupportedError: not a square matrix over tokens.
        """
        self._check_square("eigenvalues")
        if self.row_kind != "token":
            raise UnsupportedError(
                f"eigenvalues are of circuits between tokens: rows and columns of {self.label} are positions"
            )
        return sorted_eigenvalues(self.right.T @ self.left)

    def singular(self, k: int = 10) -> Singular:
        """The k strongest pairs of directions.

        Raises:
            ConfigError: k below 1 or above the rank.
        """
        if not 1 <= k <= min(self.rank, *self.shape):
            raise ConfigError(
                f"no {k} singular directions: {self.label} has 1 to {min(self.rank, *self.shape)}"
            )
        left, values, right = singular_directions(self.left, self.right, k)
        axes, kinds = (self.row_axis, self.column_axis), (self.row_kind, self.column_kind)
        return Singular(left, values, right, axes, kinds, self.unit)

    def top(
        self,
        k: int = 100,
        by: Literal["largest", "smallest", "size"] = "largest",
        progress: Progress | None = None,
    ) -> "TopEntries":
        """The k extreme entries of the whole matrix, exactly; see `workbench.circuits.top_entries`."""
        from workbench.circuits.top_entries import top_entries

        return top_entries(self.left, self.right, k, by=by, progress=progress)

    def _checked(self, given: Indices, side: Literal[0, 1]) -> Int[Tensor, " n"]:
        kind, count = (self.row_kind, self.column_kind)[side], self.shape[side]
        indices = torch.as_tensor(given, dtype=torch.long, device=self.left.device)
        wrong = indices[(indices < 0) | (indices >= count)]
        if len(wrong):
            raise PromptError(
                f"no {kind} {int(wrong[0])}: the {kind}s of {self.label} run from 0 to {count - 1}"
            )
        return indices

    def _check_square(self, what: str) -> None:
        if self.row_kind != self.column_kind or self.shape[0] != self.shape[1]:
            raise UnsupportedError(
                f"only a square circuit has {what}: {self.label} has {self.shape[0]} {self.row_kind} rows "
                f"and {self.shape[1]} {self.column_kind} columns. Rows, columns and top entries work"
            )


def ov_circuit(
    weights: EffectiveWeights,
    head: Head | HeadWeights,
    *,
    rows: Axis = "token",
    centre: bool = True,
) -> Circuit:
    """What attending to a token (or position) adds to each logit, relative to the mean logit.

    Args:
        centre: take away each row's mean, which softmax does not see.

    Raises:
        SiteError: no such head.
        UnsupportedError: a post-norm model, no unembedding, or positions that values do not see.
    """
    check_token_circuits(weights)
    check_unembedding(weights)
    chosen = of_head(weights, head)
    if rows == "position" and weights.cfg.positions == "shortformer":
        raise UnsupportedError(
            f"{weights.model_name} adds positions to queries and keys only: no head moves them, so OV has no "
            'rows of positions. qk_circuit(query="position") has'
        )
    source = weights.W_E if rows == "token" else position_table(weights)
    right = weights.W_U.T @ chosen.W_O.T
    return Circuit(
        label=chosen.label,
        kind="OV",
        left=source @ chosen.W_V,
        right=centred(right) if centre else right,
        row_kind=rows,
        column_kind="token",
        row_axis="source",
        column_axis="out",
        unit=ov_unit(weights, rows),
        offset=None,
        is_centred=centre,
        model_name=weights.model_name,
    )


def qk_circuit(
    weights: EffectiveWeights,
    head: Head | HeadWeights,
    *,
    offset: int = 0,
    query: Axis = "token",
    key: Axis = "token",
    centre: bool = True,
) -> Circuit:
    """The score of each query token (or position) at each key, relative to its mean key.

    Args:
        offset: query position minus key position; matters with rotary positions only.
        centre: take away each row's mean, which softmax does not see.

    Raises:
        SiteError: no such head.
        ConfigError: an offset that cannot occur, or one without rotary positions.
        UnsupportedError: a post-norm model, positions of an unknown kind, or no table of positions.
    """
    check_token_circuits(weights)
    check_offset(weights, offset)
    chosen = of_head(weights, head)
    left = queries(weights, chosen, query)
    right = keys(weights, chosen, key) / chosen.scale
    return Circuit(
        label=chosen.label,
        kind="QK",
        left=left if chosen.rates is None else rotate(left, chosen.rates, offset),
        right=centred(right) if centre else right,
        row_kind=query,
        column_kind=key,
        row_axis="query",
        column_axis="key",
        unit=qk_unit(weights, query, key),
        offset=None if chosen.rates is None else offset,
        is_centred=centre,
        model_name=weights.model_name,
    )


def summed(circuits: Sequence[Circuit]) -> Circuit:
    """The sum of circuits, as one of higher rank: what heads do that attend to the same place.

    Raises:
        ConfigError: none at all, or circuits that do not fit together.
    """
    if not circuits:
        raise ConfigError("nothing to sum: give at least one circuit")
    first = circuits[0]
    for other in circuits[1:]:
        for field in _ALIKE:
            ours, theirs = getattr(first, field), getattr(other, field)
            if ours != theirs:
                raise ConfigError(
                    f"{first.label} and {other.label} do not add up: {field} is {ours!r} and {theirs!r}"
                )
    return replace(
        first,
        label=first.label if len(circuits) == 1 else f"sum of {len(circuits)} heads",
        left=torch.cat([circuit.left for circuit in circuits], dim=1),
        right=torch.cat([circuit.right for circuit in circuits], dim=1),
    )
