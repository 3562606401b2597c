"""Figures as small JSON: single precision, few digits, no template, and a limit to each and to all.

Arrays leave plotly as base64 of float64; here they become float32. A figure that is still too large loses
points of its largest traces, and says so: of dots those nearest to the middle go first, lines keep every k-th.
"""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.utils import PlotlyJSONEncoder

from workbench.figures.theme import TEMPLATE

MAX_BYTES, MAX_BYTES_OF_ALL = 160_000, 1_700_000
MOST_POINTS = (2000, 500, 100)
HEIGHT, TALLEST = 360, 2400
_DIGITS = 5


@dataclass(frozen=True)
class Picture:
    """A figure, or why there is none.

    Args:
        json: data and layout, safe inside a script element; "" where there is no figure.
        note: what is missing.
    """

    json: str
    height: int = HEIGHT
    note: str = ""


@dataclass
class Budget:
    """Bytes that figures may still take, all together."""

    left: int = MAX_BYTES_OF_ALL
    template: str = field(default_factory=lambda: _dumps(TEMPLATE.to_plotly_json()))

    def pictures(self, figures: Iterable[go.Figure]) -> list[Picture]:
        """Each figure as JSON, until nothing is left."""
        return [self._picture(figure) for figure in figures]

    def _picture(self, figure: go.Figure) -> Picture:
        picture = _small(figure)
        if len(picture.json) > self.left:
            return Picture(
                "",
                note=f"A figure of {len(picture.json) >> 10} KiB is left out: all figures of a report take "
                f"{MAX_BYTES_OF_ALL >> 10} KiB at most. A report of fewer models or probes has it.",
            )
        self.left -= len(picture.json)
        return picture


def _small(figure: go.Figure) -> Picture:
    whole = figure.to_dict()
    layout = whole.get("layout", {})
    if layout.get("template") == TEMPLATE.to_plotly_json():
        del layout["template"]
    height = layout.get("height")
    height = int(min(max(height, 120), TALLEST)) if isinstance(height, int | float) else HEIGHT
    text = _dumps(_light(whole))
    if len(text) <= MAX_BYTES:
        return Picture(text, height)
    for most in MOST_POINTS:
        thin = {**whole, "data": [_thinned(trace, most) for trace in whole.get("data", [])]}
        text = _dumps(_light(thin))
        if len(text) <= MAX_BYTES:
            note = (
                f"Drawn with at most {most:,} points of each line or cloud: of clouds the outermost, of lines "
                "every so many. findings.parquet has all."
            )
            return Picture(text, height, note)
    note = f"A figure is left out: it takes {len(text) >> 10} KiB, over {MAX_BYTES >> 10}."
    return Picture("", note=note)


def _dumps(value: Any) -> str:
    text: str = json.dumps(value, cls=PlotlyJSONEncoder, separators=(",", ":"))
    # Nothing in it may end the element that it stands in.
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _light(value: Any) -> Any:
    """The same with fewer digits."""
    if isinstance(value, dict):
        if value.get("dtype") == "f8" and "bdata" in value:
            return {**value, "dtype": "f4", "bdata": _encoded(_decoded(value).astype("<f4"))}
        return {name: _light(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [_light(of) for of in value]
    if isinstance(value, np.ndarray):
        return [_light(of) for of in value.tolist()]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _decoded(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["bdata"]), dtype=f"<{packed['dtype']}")


def _encoded(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _thinned(trace: dict[str, Any], most: int) -> dict[str, Any]:
    """A trace with fewer points; what has no points along one axis stays as it is."""
    y = _values(trace.get("y"))
    if y is None or len(y) <= most or "z" in trace:
        return trace
    if "lines" in str(trace.get("mode", "")):
        kept = np.unique(np.linspace(0, len(y) - 1, most).round().astype(int))
    else:
        far = np.nan_to_num(np.abs(y - np.nanmedian(y)))
        kept = np.sort(np.argsort(-far, kind="stable")[:most])
    picked: dict[str, Any] = _picked(trace, len(y), kept)
    return picked


def _values(values: Any) -> np.ndarray | None:
    if isinstance(values, dict) and "bdata" in values and "shape" not in values:
        return _decoded(values).astype(float)
    if isinstance(values, list | tuple | np.ndarray):
        try:
            found = np.asarray(values, dtype=float)
        except (TypeError, ValueError):
            return None
        return found if found.ndim == 1 else None
    return None


def _picked(value: Any, n: int, kept: np.ndarray) -> Any:
    """Every array of n entries, at some of them."""
    if isinstance(value, dict):
        if "bdata" not in value:
            return {name: _picked(of, n, kept) for name, of in value.items()}
        shape = [int(size) for size in str(value.get("shape", n)).split(",")]
        array = _decoded(value)
        if shape[0] != n:
            return value if array.shape != (n,) else _repacked(value, array[kept])
        return _repacked(value, array.reshape(shape if "shape" in value else -1)[kept])
    if isinstance(value, list | tuple | np.ndarray) and len(value) == n:
        return [value[index] for index in kept]
    return value


def _repacked(packed: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
    shape = {"shape": ", ".join(map(str, values.shape))} if "shape" in packed else {}
    return {**packed, "bdata": _encoded(values), **shape}
