"""Singular directions of a circuit, read through the vocabulary.

    left @ right.T = Σ_k values[k] · outer(left_vectors[k], right_vectors[k])

From QR of both factors and an SVD of the small product between, so that no vocabulary-sized square is formed.
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.protocol import Model
from workbench.vocabulary import token_texts

COLUMNS = ("direction", "value", "side", "sign", "rank", "id", "text", "weight", "unit")


@dataclass(frozen=True, eq=False)
class Singular:
    """Directions that a circuit reads (left) and writes (right), strongest first; vectors have length 1.

    The sign of a pair is free: the largest entry of the left vector is made positive.

    Args:
        values: how strongly each is passed on, in `unit`.
        axes: what rows and columns are called.
        kinds: whether each are tokens or positions.
    """

    left_vectors: Float[Tensor, "k row"]
    values: Float[Tensor, " k"]
    right_vectors: Float[Tensor, "k column"]
    axes: tuple[str, str]
    kinds: tuple[Literal["token", "position"], Literal["token", "position"]]
    unit: str

    def table(self, model: Model | None = None, *, top: int = 10) -> pd.DataFrame:
        """Both ends of each direction: direction, value, side, sign (1 or -1), rank, id, text, weight, unit.

        Ends of one sign belong together: the source tokens with 1 raise the out tokens with 1.

        Args:
            model: spells tokens; without it `text` is the number.
            top: entries of each end.
        """
        frames = []
        for side, vectors in enumerate((self.left_vectors, self.right_vectors)):
            speller = model if self.kinds[side] == "token" else None
            for direction, vector in enumerate(vectors):
                value = float(self.values[direction])
                for sign in (1, -1):
                    frame = _end(vector, sign, top, speller)
                    frames.append(
                        frame.assign(direction=direction, value=value, side=self.axes[side])
                    )
        table = pd.concat(frames, ignore_index=True).assign(unit=self.unit)
        return table[list(COLUMNS)]


def _end(vector: Float[Tensor, " n"], sign: int, top: int, model: Model | None) -> pd.DataFrame:
    best = (vector * sign).topk(min(top, len(vector)))
    ids = best.indices.tolist()
    return pd.DataFrame(
        {
            "sign": sign,
            "rank": range(1, len(ids) + 1),
            "id": ids,
            "text": list(map(str, ids)) if model is None else token_texts(model, ids),
            "weight": (best.values * sign).tolist(),
        }
    )


def singular_directions(
    left: Float[Tensor, "row rank"], right: Float[Tensor, "column rank"], k: int
) -> tuple[Float[Tensor, "k row"], Float[Tensor, " k"], Float[Tensor, "k column"]]:
    """Left vectors, values and right vectors of `left @ right.T`, strongest first."""
    left_basis, left_small = torch.linalg.qr(left)
    right_basis, right_small = torch.linalg.qr(right)
    u, values, v = torch.linalg.svd(left_small @ right_small.T)
    reads, writes = (left_basis @ u[:, :k]).T, (right_basis @ v[:k].T).T
    largest = reads.gather(1, reads.abs().argmax(1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(reads)
    return reads * sign, values[:k], writes * sign
