"""How the residual stream is filled: sizes of its parts, how they point, and what later layers leave of them.

    survival[c] = ⟨part_c, part_c + Σ_later part⟩ / ‖part_c‖²

1: later layers write nothing along the part; 0: they erase it; below 0: they turn it round; above 1: they
write more of the same. Unrelated later writing scatters it around 1 by
`spread` = ‖Σ_later‖ / (‖part‖ √d_model); unrelated parts have cosines around 0 by 1/√d_model.
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits": memory management in the stream.)
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from einops import einsum
from jaxtyping import Float

from workbench.models.protocol import Model
from workbench.runs import Prompt
from workbench.stream.parts import Part, as_numpy, part_columns, stream_parts


@dataclass(frozen=True, eq=False)
class StreamGeometry:
    """Every part of one prompt's final stream, by position.

    Args:
        norms: Euclidean length.
        cosines: between parts, averaged over positions after the first (where streams are unlike the others).
        survival: as above; NaN where a part writes nothing.
        spread: standard deviation of survival if what came later were unrelated.
        residual: the largest |Σ parts - stream| over |stream|.
    """

    model_name: str
    str_tokens: tuple[str, ...]
    parts: tuple[Part, ...]
    norms: Float[np.ndarray, "part pos"]
    stream_norm: Float[np.ndarray, " pos"]
    cosines: Float[np.ndarray, "part other"]
    survival: Float[np.ndarray, "part pos"]
    spread: Float[np.ndarray, "part pos"]
    cosine_spread: float
    residual: float

    def table(self) -> pd.DataFrame:
        """Tidy: part kind layer head … pos token norm stream_norm survival spread."""
        n_parts, n_pos = self.norms.shape
        part, pos = (axis.ravel() for axis in np.indices((n_parts, n_pos)))
        frame = part_columns(self.parts).iloc[part].reset_index(drop=True)
        return frame.assign(
            pos=pos,
            token=[self.str_tokens[index] for index in pos],
            norm=self.norms.ravel(),
            stream_norm=np.tile(self.stream_norm, n_parts),
            survival=self.survival.ravel(),
            spread=self.spread.ravel(),
        )

    def cosine_table(self) -> pd.DataFrame:
        """Tidy: part other cosine spread."""
        labels = [part.label for part in self.parts]
        first, second = (axis.ravel() for axis in np.indices(self.cosines.shape))
        return pd.DataFrame(
            {
                "part": [labels[index] for index in first],
                "other": [labels[index] for index in second],
                "cosine": self.cosines.ravel(),
                "spread": self.cosine_spread,
            }
        )


def stream_geometry(model: Model, prompt: Prompt, *, by: str = "component") -> StreamGeometry:
    """Sizes, directions and survival of everything that was written to the stream.

    Args:
        by: "component" or "head".

    Raises:
        UnsupportedError: a post-norm model, whose stream is not a sum; AdaNorm.
        PromptError: several prompts, or one that the model cannot read.
        ConfigError: another `by`.
    """
    found = stream_parts(model, prompt, by=by)
    x = as_numpy(found.vectors).astype(np.float64)
    norms = np.linalg.norm(x, axis=-1)
    # What parts written by later layers add up to; those of one layer act at once, so they are not "later".
    depth = np.array([_depth(part, model.cfg.parallel) for part in found.parts])
    later = np.stack([x[depth > level].sum(axis=0) for level in depth])
    square = norms**2
    along = einsum(x, later, "part pos d_model, part pos d_model -> part pos")
    silent = norms == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        survival = np.where(silent, np.nan, 1 + along / square)
        spread = np.linalg.norm(later, axis=-1) / (norms * x.shape[-1] ** 0.5)
        directions = np.where(silent[..., None], 0.0, x / norms[..., None])
    start = min(1, x.shape[1] - 1)
    cosines = einsum(
        directions[:, start:],
        directions[:, start:],
        "part pos d_model, other pos d_model -> part other pos",
    ).mean(-1)
    return StreamGeometry(
        model_name=found.model_name,
        str_tokens=found.str_tokens,
        parts=found.parts,
        norms=norms,
        stream_norm=np.linalg.norm(as_numpy(found.final).astype(np.float64), axis=-1),
        cosines=cosines,
        survival=survival,
        spread=np.where(silent, np.nan, spread),
        cosine_spread=x.shape[-1] ** -0.5,
        residual=found.residual,
    )


def _depth(part: Part, is_parallel: bool) -> float:
    """When a part is written: embeddings first, then the layers, an MLP half a step after its attention."""
    if part.layer is None:
        return -1.0
    return part.layer + (0.5 if part.kind == "mlp" and not is_parallel else 0.0)
