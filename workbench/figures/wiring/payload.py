"""What the wiring viewer is sent: plain JSON, its arrays as base64 of little-endian numbers.

    format 1   title groups rows boxes scale density
               blocks    [{name, limit}]          limit = the |weight| drawn thickest
               dots      {group uint16, index uint32, x float32, y float32, labels}
               frames    [{step, wires, left_out, largest, source uint32, target uint32, weight float32,
                           block uint16, stands uint32 or null}]

A picture is one frame. Frames, and pictures made with `like`, share limits and density, so that lines of the
same weight look the same. Density is the number of lines that count, those below 0.15 of the limit in part:
the more there are, the thinner all are drawn.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from workbench.errors import ConfigError
from workbench.training.wiring_picture import WiringPicture
from workbench.training.wiring_series import WiringSeries

FORMAT = 1
FULL_INK = 0.15
"""Part of the limit from which on a line is drawn as dark as any; thinner ones fade towards zero."""


def payload(
    shown: WiringPicture | WiringSeries,
    *,
    like: Sequence[WiringPicture | WiringSeries] = (),
    title: str | None = None,
) -> dict[str, Any]:
    """A picture, or several of one run, as the viewer reads it.

    Args:
        like: pictures with the same blocks, beside which it stands, that are to share its scale.

    Raises:
        ConfigError: pictures of other blocks of wires, or of another kind of scale.
    """
    pictures = _pictures(shown)
    first = pictures[0]
    together = [picture for each in (shown, *like) for picture in _pictures(each)]
    limits = _limits(first, together)
    series = shown if isinstance(shown, WiringSeries) else None
    steps = series.steps if series else (None,)
    stands = [_moved(row) for row in series.stands] if series else [None]
    return {
        "format": FORMAT,
        "title": first.model_name if title is None else title,
        "groups": list(first.dots.groups),
        "rows": [[name, y] for name, y in first.rows],
        "boxes": [list(box) for box in first.boxes],
        "scale": first.scale,
        "density": max(_density(picture, limits) for picture in together),
        "blocks": [{"name": name, "limit": limit} for name, limit in limits.items()],
        "dots": {
            "group": _packed(first.dots.group, "<u2"),
            "index": _packed(first.dots.index, "<u4"),
            "x": _packed(first.dots.x, "<f4"),
            "y": _packed(first.dots.y, "<f4"),
            "labels": list(first.dots.labels) if any(first.dots.labels) else [],
        },
        "frames": [_frame(*each) for each in zip(pictures, steps, stands, strict=True)],
    }


def _pictures(shown: WiringPicture | WiringSeries) -> tuple[WiringPicture, ...]:
    return shown.pictures if isinstance(shown, WiringSeries) else (shown,)


def _limits(first: WiringPicture, together: Sequence[WiringPicture]) -> dict[str, float]:
    names = [block.name for block in first.blocks]
    for other in together:
        if [block.name for block in other.blocks] != names or other.scale != first.scale:
            raise ConfigError(
                f"{other.model_name} and {first.model_name} have other blocks of wires or another scale: "
                "they cannot share one"
            )
    return {name: max(each.limits()[name] for each in together) or 1.0 for name in names}


def _density(picture: WiringPicture, limits: dict[str, float]) -> float:
    limit = np.array(list(limits.values()))[picture.lines.block]
    return float(np.minimum(1, np.abs(picture.lines.weight) / limit / FULL_INK).sum())


def _frame(picture: WiringPicture, step: int | None, stands: np.ndarray | None) -> dict[str, Any]:
    lines = picture.lines
    return {
        "step": step,
        "wires": picture.n_lines,
        "left_out": picture.left_out_share,
        "largest": picture.largest,
        "source": _packed(lines.source, "<u4"),
        "target": _packed(lines.target, "<u4"),
        "weight": _packed(lines.weight, "<f4"),
        "block": _packed(lines.block, "<u2"),
        "stands": None if stands is None else _packed(stands, "<u4"),
    }


def _moved(stands: np.ndarray) -> np.ndarray | None:
    return None if bool((stands == np.arange(len(stands))).all()) else stands


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")


def unpacked(text: str, kind: str) -> np.ndarray:
    """The numbers of a packed array: the oracle of the viewer's reader."""
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def frames_of(given: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """The lines of each frame of a payload, as arrays."""
    kinds = {"source": "<u4", "target": "<u4", "weight": "<f4", "block": "<u2"}
    for frame in given["frames"]:
        yield {name: unpacked(frame[name], kind) for name, kind in kinds.items()}
