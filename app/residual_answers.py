"""What the residual page computes, in a job's thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from app.jobs import Progress
from workbench.errors import PromptError
from workbench.models.protocol import Model
from workbench.runs import run
from workbench.stream.attribution import LogitAttribution, logit_attribution
from workbench.stream.lens import LogitLens, logit_lens
from workbench.stream.residual import StreamGeometry, stream_geometry
from workbench.vocabulary import token_id


@dataclass(frozen=True, eq=False)
class LensAnswer:
    """A lens, how each cell's token is written into the address, and the ranks of the final predictions."""

    lens: LogitLens
    spelled: tuple[tuple[str, ...], ...]
    ranks: Int[np.ndarray, "layer pos"] | None

    def table(self) -> pd.DataFrame:
        """As `LogitLens.table`."""
        return self.lens.table()


@dataclass(frozen=True, eq=False)
class CosineAnswer:
    """The cosines of a stream's parts."""

    stream: StreamGeometry

    def table(self) -> pd.DataFrame:
        """As `StreamGeometry.cosine_table`."""
        return self.stream.cosine_table()


def read_lens(model: Model, asked: Mapping[str, Any], report: Progress) -> LensAnswer:
    """The lens of a prompt; with `asked["ranks"]` also the rank of each position's final prediction."""
    prompt, progress = asked["prompt"], report.counting("Reading layers")
    if not asked["ranks"]:
        lens = logit_lens(model, prompt, progress=progress)
        return LensAnswer(lens, _spellings(model, lens), None)
    finals: list[int] = run(model, prompt, sites=()).logits[0].argmax(-1).tolist()
    followed = sorted(set(finals))
    lens = logit_lens(model, prompt, tokens=followed, progress=progress)
    column = [followed.index(token) for token in finals]
    ranks = lens.ranks[:, np.arange(len(finals)), column]
    return LensAnswer(lens, _spellings(model, lens), ranks)


def attribute(model: Model, asked: Mapping[str, Any], report: Progress) -> LogitAttribution:
    """The attribution of one prediction."""
    report(f"Attributing by {asked['by']}")
    return logit_attribution(
        model,
        asked["prompt"],
        token_of(asked["target"]),
        distractor=token_of(asked["distractor"]),
        pos=-1 if asked["pos"] is None else asked["pos"],
        by=asked["by"],
    )


def stream(model: Model, asked: Mapping[str, Any], report: Progress) -> StreamGeometry:
    """Lengths and survival of the stream's parts."""
    report("Taking the stream apart")
    return stream_geometry(model, asked["prompt"])


def cosines(model: Model, asked: Mapping[str, Any], report: Progress) -> CosineAnswer:
    """Cosines between the stream's parts."""
    return CosineAnswer(stream(model, asked, report))


def token_of(text: str) -> str | int | None:
    """A token as the page's fields write it: `#123` is an id, nothing is no token."""
    if not text:
        return None
    is_id = text.startswith("#") and text[1:].isascii() and text[1:].isdigit()
    return int(text[1:]) if is_id and len(text) <= 8 else text


def _spellings(model: Model, lens: LogitLens) -> tuple[tuple[str, ...], ...]:
    """The likeliest token of every cell as text that reads back as this token, else as `#id`."""
    ids, texts = lens.top_tokens[..., 0], lens.top_texts
    known: dict[int, str] = {}
    for row, cells in zip(ids.tolist(), texts, strict=True):
        for token, cell in zip(row, cells, strict=True):
            if token not in known:
                known[token] = _spelling(model, token, cell[0])
    return tuple(tuple(known[token] for token in row) for row in ids.tolist())


def _spelling(model: Model, token: int, text: str) -> str:
    try:
        is_same = token_of(text) == text and token_id(model, text) == token
    except PromptError:
        is_same = False
    return text if is_same else f"#{token}"
