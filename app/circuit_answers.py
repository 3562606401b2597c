"""What the circuits page asks of the library: each function answers one panel, from the fields of its state.

The head is `head`, or with `earlier` the virtual head `head∘earlier` whose input `through` is read through the
earlier head. Embeddings are divided by their own norm scale, or raw. The circuit is OV or QK; the offset
between query and key counts with rotary positions only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from app.jobs import Progress
from workbench.circuits.copying import CopyingScores, EigenCloud, copying_scores, eigen_cloud
from workbench.circuits.full import Circuit, ov_circuit, qk_circuit
from workbench.circuits.geometry import Geometry, qk_geometry
from workbench.circuits.positions import OffsetScores, score_by_offset
from workbench.composition.virtual import virtual_head
from workbench.errors import PromptError
from workbench.models.protocol import Model
from workbench.sites import Head
from workbench.trigrams.named_tokens import find_tokens
from workbench.vocabulary import token_id, token_texts
from workbench.weights import EffectiveWeights, HeadWeights, effective_weights

Given = Mapping[str, Any]
HEAD = ("head", "earlier", "through", "embedding")
CIRCUIT = (*HEAD, "circuit", "offset")
N_NULL, N_GEOMETRY = 100, 100
MAX_BLOCK, MAX_MATCHES, N_ENDS, N_DIRECTIONS = 40, 60, 40, 12


def token_weights(model: Model, given: Given) -> EffectiveWeights:
    """A model's weights, each token's embedding over its own norm scale unless raw ones are asked for."""
    return effective_weights(model, normalise_tokens=given["embedding"] != "raw")


def chosen_head(model: Model, given: Given) -> tuple[EffectiveWeights, HeadWeights]:
    """The weights of a model and of the chosen head, real or virtual.

    Raises:
        SiteError: no such head, or an earlier one that is not earlier.
        UnsupportedError: a virtual head where norms stand between heads.
    """
    weights, head = token_weights(model, given), Head.parse(given["head"])
    if not given["earlier"]:
        return weights, weights.head(head)
    earlier = Head.parse(given["earlier"])
    return weights, virtual_head(weights, head, earlier, through=given["through"])


def chosen_circuit(model: Model, given: Given) -> tuple[EffectiveWeights, Circuit]:
    """The chosen circuit between tokens, with the weights that it is of.

    Raises:
        SiteError: no such head.
        UnsupportedError: a model without token circuits.
    """
    weights, head = chosen_head(model, given)
    if given["circuit"] == "OV":
        return weights, ov_circuit(weights, head)
    offset = given["offset"] if weights.cfg.positions == "rotary" else 0
    return weights, qk_circuit(weights, head, offset=offset)


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """A circuit's eigenvalues beside random ones, in `unit`."""

    cloud: EigenCloud
    unit: str

    def table(self) -> pd.DataFrame:
        """One row per eigenvalue, those of random circuits too."""
        return self.cloud.table().assign(unit=self.unit)


def eigenvalues(model: Model, given: Given, report: Progress) -> Eigenvalues:
    """The eigenvalues of the chosen circuit and of random ones."""
    weights, circuit = chosen_circuit(model, given)
    report(f"Eigenvalues of {circuit.label} and of {N_NULL} random heads")
    return Eigenvalues(eigen_cloud(circuit, weights, n_null=N_NULL), circuit.unit)


def copying(model: Model, given: Given, report: Progress) -> CopyingScores:
    """The copying score of every head."""
    weights = token_weights(model, given)
    said = report.counting("Eigenvalues of every head")
    return copying_scores(weights, kind=given["circuit"], n_null=N_NULL, n_tokens=0, progress=said)


def geometry(model: Model, given: Given, report: Progress) -> Geometry:
    """The geometry of every head's circuits."""
    offset = given["offset"] if model.cfg.positions == "rotary" else 0
    said = report.counting("Geometry of every head")
    return qk_geometry(effective_weights(model), offset=offset, n_null=N_GEOMETRY, progress=said)


@dataclass(frozen=True, eq=False)
class Offsets:
    """A head's scores at each distance, and whether its QK circuit changes with the offset."""

    scores: OffsetScores
    is_rotary: bool

    def table(self) -> pd.DataFrame:
        """As of `OffsetScores`."""
        return self.scores.table()


def offsets(model: Model, given: Given, report: Progress) -> Offsets:
    """The chosen head's scores at each distance."""
    weights, head = chosen_head(model, given)
    return Offsets(score_by_offset(weights, head), weights.cfg.positions == "rotary")


def entries(model: Model, given: Given, report: Progress) -> pd.DataFrame:
    """The extreme entries of the chosen circuit: rank, both tokens with their ids, value, unit."""
    _, circuit = chosen_circuit(model, given)
    said = report.counting("Searching all entries")
    found = circuit.top(given["k"], by=given["by"], progress=said)
    rows, columns = found.rows.tolist(), found.columns.tolist()
    ends = {circuit.row_axis: rows, circuit.column_axis: columns}
    table = pd.DataFrame({"rank": range(1, len(rows) + 1)})
    for axis, ids in ends.items():
        table[axis] = token_texts(model, ids)
    table["value"] = found.values.tolist()
    return table.assign(**{f"{axis}_id": ids for axis, ids in ends.items()}, unit=circuit.unit)


def found_tokens(model: Model, text: str) -> list[int]:
    """Ids of the tokens that contain a text, the nearest first; `#17` is the token of that id.

    Raises:
        PromptError: there is none.
    """
    if text.startswith("#") and text[1:].isdecimal():
        return [token_id(model, int(text[1:10]))]
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer: write #id for the token of an id")
    found = find_tokens(model.tokenizer, text, MAX_MATCHES)
    if not found:
        raise PromptError(
            f"no token of {model.name} contains {text[:40]!r}: write less of it, or #id"
        )
    return found


@dataclass(frozen=True, eq=False)
class Line:
    """The extreme entries of one row or column of a circuit.

    Args:
        token: the token whose row or column it is; `axis` says of which side.
        ends: rank, side ("largest" or "smallest"), token, id, value.
        own: the entry of the token with itself.
        matches: tokens that contain the text that was asked for.
    """

    token: str
    id: int
    axis: str
    other_axis: str
    ends: pd.DataFrame
    own: float | None
    matches: tuple[str, ...]
    unit: str

    def table(self) -> pd.DataFrame:
        """Tidy: of, of_id, axis, then the columns of `ends`, and unit."""
        named = self.ends.rename(columns={"token": self.other_axis, "id": f"{self.other_axis}_id"})
        return named.assign(
            **{self.axis: self.token, f"{self.axis}_id": self.id, "unit": self.unit}
        )


def line(model: Model, given: Given, report: Progress) -> Line:
    """The row or column of a token of the chosen circuit: that which is asked for, else the prompt's last.

    Raises:
        PromptError: no token contains the text.
    """
    _, circuit = chosen_circuit(model, given)
    if given["token"]:
        chosen, *matches = found_tokens(model, given["token"])
    else:
        chosen, matches = int(model.to_tokens(given["prompt"])[0, -1]), []
    is_row = given["side"] == "row"
    values = (circuit.row(chosen) if is_row else circuit.column(chosen)).double()
    axes = (circuit.row_axis, circuit.column_axis)
    frames = []
    for side, sign in (("largest", 1), ("smallest", -1)):
        best = (values * sign).topk(min(N_ENDS, len(values)))
        ids = best.indices.tolist()
        columns = {"token": token_texts(model, ids), "value": (best.values * sign).tolist()}
        frames.append(
            pd.DataFrame({"side": side, "rank": range(1, len(ids) + 1), **columns, "id": ids})
        )
    return Line(
        token=token_texts(model, [chosen])[0],
        id=chosen,
        axis=axes[0] if is_row else axes[1],
        other_axis=axes[1] if is_row else axes[0],
        ends=pd.concat(frames, ignore_index=True),
        own=float(values[chosen]) if chosen < len(values) else None,
        matches=tuple(token_texts(model, matches)),
        unit=circuit.unit,
    )


@dataclass(frozen=True, eq=False)
class Block:
    """The entries of a circuit between the tokens of a text, each token once."""

    values: Float[np.ndarray, "row column"]
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    axes: tuple[str, str]
    unit: str
    n_left_out: int

    def table(self) -> pd.DataFrame:
        """Tidy: the row's token and id, the column's, value, unit."""
        places = [index.ravel() for index in np.indices(self.values.shape)]
        texts, ids = np.array(self.tokens, object), np.array(self.ids)
        columns = {axis: texts[place] for axis, place in zip(self.axes, places, strict=True)}
        columns |= {f"{axis}_id": ids[place] for axis, place in zip(self.axes, places, strict=True)}
        return pd.DataFrame({**columns, "value": self.values.ravel(), "unit": self.unit})


def block(model: Model, given: Given, report: Progress) -> Block:
    """The chosen circuit between the distinct tokens of the prompt, in their order."""
    _, circuit = chosen_circuit(model, given)
    distinct = list(dict.fromkeys(model.to_tokens(given["prompt"])[0].tolist()))
    ids = distinct[:MAX_BLOCK]
    return Block(
        values=circuit.block(ids, ids).double().cpu().numpy(),
        tokens=tuple(token_texts(model, ids)),
        ids=tuple(ids),
        axes=(circuit.row_axis, circuit.column_axis),
        unit=circuit.unit,
        n_left_out=len(distinct) - len(ids),
    )


@dataclass(frozen=True, eq=False)
class Directions:
    """The strongest singular directions of a circuit, their tokens at both ends, and all singular values."""

    values: Float[np.ndarray, " direction"]
    ends: pd.DataFrame
    unit: str

    def table(self) -> pd.DataFrame:
        """Tidy: direction, value, side, sign, rank, id, text, weight, unit."""
        return self.ends


def directions(model: Model, given: Given, report: Progress) -> Directions:
    """What the chosen circuit reads and writes, direction by direction."""
    _, circuit = chosen_circuit(model, given)
    found = circuit.singular(min(circuit.rank, *circuit.shape))
    strongest = replace(
        found,
        left_vectors=found.left_vectors[:N_DIRECTIONS],
        values=found.values[:N_DIRECTIONS],
        right_vectors=found.right_vectors[:N_DIRECTIONS],
    )
    values = found.values.double().cpu().numpy()
    return Directions(values, strongest.table(model, top=8), circuit.unit)
