"""What the viewer is sent: one JSON description, one compressed payload per layer, exact lines on demand.

A layer's payload, after gunzip (all little-endian):

    "WBA1" | uint32 length of the header | header, JSON | one uint8 code per cell

Cells run head, query, key; of causal maps only the triangle key <= query exists. A code means

    unsigned   value = limit * (code / levels)²                          code 0 … levels
    signed     value = limit * sign(s) * (s / levels)², s = code - levels    code 0 … 2 levels
    255        the cell does not exist

with a limit per head, so that a diffuse head is coded as finely as a sharp one. The square root spends
the codes where attention lives: near zero. Scores before softmax do not live there, and are coded
without the square ("scale": "linear").
"""

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from workbench.attention import AttentionMaps
from workbench.errors import BudgetError, ConfigError, SiteError

MAGIC = b"WBA1"
FORMAT = 1
MISSING = 255
# A signed code holds both halves, so 127 steps a side fill the byte; unsigned codes go to 254.
LEVELS = (254, 181, 127, 90, 63, 51, 43, 36, 31, 27, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3)
SIGNED_LEVELS = LEVELS[2:]
# 12 causal heads of 512 tokens may take this many compressed bytes; larger layers in proportion.
BUDGET_BYTES = 298_000
BUDGET_CELLS = 12 * 512 * 513 // 2
# Scores look like noise, which nothing compresses: in the same room they would keep 3 levels a side.
LINEAR_BUDGET = 3
MAX_CELLS = 1 << 28


def view_meta(
    maps: AttentionMaps, badges: Mapping[Any, Sequence[Any]] | None = None
) -> dict[str, Any]:
    """The JSON description that the viewer asks for first.

    Args:
        badges: per head (`Head` or a label such as "1.3"), `heads.badges` of its scores, or records
            with `label` or `behaviour`, `value` and, if known, `chance`.

    Raises:
        ConfigError: a layer whose shape is not that of the tokens.
        SiteError: a badge of a head that these maps do not have.
    """
    heads = [
        0 if layer is None else _checked(maps, i).shape[0] for i, layer in enumerate(maps.layers)
    ]
    return {
        "format": FORMAT,
        "kind": maps.kind,
        "unit": maps.unit,
        "title": maps.title,
        "causal": _is_triangular(maps),
        "signed": bool(maps.is_signed),
        "limit": _finite_limit(maps.limit),
        "layers": heads,
        "query_tokens": list(maps.query_tokens),
        "key_tokens": list(maps.key_tokens),
        "badges": _badges(badges or {}, heads),
        "precision": "the picture: 8-bit codes, per head; crosshair and tokens: exact",
    }


def drawn_layers(maps: AttentionMaps) -> dict[int, Float[np.ndarray, "head query key"]]:
    """The layers that have attention, by number."""
    return {index: layer for index, layer in enumerate(maps.layers) if layer is not None}


def encode_layer(maps: AttentionMaps, layer: int) -> bytes:
    """One layer's maps, quantised as finely as its byte budget allows, gzip-compressed.

    Raises:
        SiteError: no such layer, or one without attention.
        ConfigError: the shape is not that of the tokens.
        BudgetError: more cells than a browser should be asked to draw.
    """
    cells = _cells(maps, layer)
    if cells.size > MAX_CELLS:
        raise BudgetError(
            f"layer {layer} has {cells.size:,} cells; the viewer draws up to {MAX_CELLS:,}: "
            "use a shorter prompt or fewer heads"
        )
    limits = _head_limits(cells)
    signed, scale = bool(maps.is_signed), _scale(maps)
    budget = BUDGET_BYTES * max(1.0, cells.size / BUDGET_CELLS)
    if scale == "linear":
        budget *= LINEAR_BUDGET

    def encoded(levels: int) -> bytes:
        codes = quantise(cells, limits, levels, signed=signed, scale=scale)
        return _compressed(_pack(maps, layer, limits, levels, codes), budget)

    return _finest_within(budget, SIGNED_LEVELS if signed else LEVELS, encoded)


def exact_cross(
    maps: AttentionMaps, layer: int, head: int, pos: int
) -> dict[str, list[float | None]]:
    """The exact row (what position `pos` looks at) and column (who looks at it); None = no such cell.

    Raises:
        SiteError: no such layer, head or position.
    """
    values = _checked(maps, layer)
    n_heads, n_queries, n_keys = values.shape
    if not 0 <= head < n_heads:
        raise SiteError(f"layer {layer} has heads 0 to {n_heads - 1}, not {head}")
    if not 0 <= pos < max(n_queries, n_keys):
        raise SiteError(f"positions run from 0 to {max(n_queries, n_keys) - 1}, not {pos}")
    row = values[head, pos, :] if pos < n_queries else values[head, 0, :0]
    column = values[head, :, pos] if pos < n_keys else values[head, :0, 0]
    if _is_triangular(maps):
        row = np.where(np.arange(len(row)) <= pos, row, np.nan)
        column = np.where(np.arange(len(column)) >= pos, column, np.nan)
    return {"row": _jsonable(row), "column": _jsonable(column)}


def quantise(
    cells: Float[np.ndarray, "head cell"],
    limits: Float[np.ndarray, " head"],
    levels: int,
    *,
    signed: bool,
    scale: Literal["sqrt", "linear"] = "sqrt",
) -> UInt8[np.ndarray, "head cell"]:
    """Codes of the values.

    A decoded value is off by at most limit / (2 levels) on the linear scale; on the square root's by
    limit * (root / levels + 1 / (4 levels²)) with root = sqrt(|value| / limit): least near zero.
    """
    ends = np.where(limits > 0, limits, 1.0)[:, None]
    exists = np.isfinite(cells)
    values = np.where(exists, cells, 0.0)
    sizes = np.minimum(np.abs(values) / ends, 1.0)
    sizes = levels * (np.sqrt(sizes) if scale == "sqrt" else sizes)
    steps = np.rint(np.copysign(sizes, values)) + levels if signed else np.rint(sizes)
    return np.where(exists, steps, MISSING).astype(np.uint8)


def decode_layer(payload: bytes) -> tuple[dict[str, Any], Float[np.ndarray, "head query key"]]:
    """The header and the values of a payload, NaN where no cell exists: the oracle of the viewer's decoder.

    Raises:
        ConfigError: not a payload of this format.
    """
    raw = gzip.decompress(payload)
    if raw[:4] != MAGIC:
        raise ConfigError(f"not an attention payload: it starts with {raw[:4]!r}, not {MAGIC!r}")
    (length,) = struct.unpack("<I", raw[4:8])
    header = json.loads(raw[8 : 8 + length])
    codes = np.frombuffer(raw, np.uint8, offset=8 + length).reshape(header["heads"], -1)
    levels = header["levels"]
    steps = codes.astype(np.float32) - (levels if header["signed"] else 0)
    limits = np.array(header["limits"], np.float32)[:, None]
    sizes = np.abs(steps / levels) ** (2 if header["scale"] == "sqrt" else 1)
    cells = np.where(codes == MISSING, np.nan, limits * np.sign(steps) * sizes)
    if not header["causal"]:
        return header, cells.reshape(header["heads"], header["queries"], header["keys"])
    n = header["queries"]
    values = np.full((header["heads"], n, n), np.nan, np.float32)
    values[(slice(None), *np.tril_indices(n))] = cells
    return header, values


def _finest_within(
    budget: float, choices: tuple[int, ...], encoded: Callable[[int], bytes]
) -> bytes:
    """The payload with the most levels that fits; the coarsest one if none does."""
    payload = encoded(choices[0])
    if len(payload) <= budget:
        return payload
    fits, low, high = None, 1, len(choices) - 1
    while low <= high:
        middle = (low + high) // 2
        payload = encoded(choices[middle])
        if len(payload) <= budget:
            fits, high = payload, middle - 1
        else:
            low = middle + 1
    return payload if fits is None else fits


def _compressed(raw: bytes, budget: float) -> bytes:
    """Gzip, with or without the search for repeats: structure is smaller with it, noise without.

    Structure is the rule, so the search goes first; it is slow only where it finds nothing.
    """
    smallest = b""
    for level, strategy in ((4, zlib.Z_DEFAULT_STRATEGY), (4, zlib.Z_HUFFMAN_ONLY)):
        packer = zlib.compressobj(level, zlib.DEFLATED, 31, 9, strategy)
        packed = packer.compress(raw) + packer.flush()
        if not smallest or len(packed) < len(smallest):
            smallest = packed
        if len(smallest) <= budget:
            break
    return smallest


def _scale(maps: AttentionMaps) -> Literal["sqrt", "linear"]:
    return "linear" if maps.kind == "scores" else "sqrt"


def _is_triangular(maps: AttentionMaps) -> bool:
    return bool(maps.causal) and len(maps.query_tokens) == len(maps.key_tokens)


def _checked(maps: AttentionMaps, layer: int) -> Float[np.ndarray, "head query key"]:
    if not 0 <= layer < len(maps.layers):
        raise SiteError(f"layers run from 0 to {len(maps.layers) - 1}, not {layer}")
    values = maps.layers[layer]
    if values is None:
        raise SiteError(f"layer {layer} has no attention")
    expected = (len(maps.query_tokens), len(maps.key_tokens))
    if values.ndim != 3 or values.shape[1:] != expected:
        raise ConfigError(
            f"layer {layer} has the shape {list(values.shape)}; "
            f"its tokens ask for [head, {expected[0]}, {expected[1]}]"
        )
    return np.asarray(values, np.float32)


def _cells(maps: AttentionMaps, layer: int) -> Float[np.ndarray, "head cell"]:
    values = _checked(maps, layer)
    if _is_triangular(maps):
        return values[(slice(None), *np.tril_indices(values.shape[1]))]
    return values.reshape(values.shape[0], -1)


def _head_limits(cells: Float[np.ndarray, "head cell"]) -> Float[np.ndarray, " head"]:
    magnitudes = np.where(np.isfinite(cells), np.abs(cells), 0.0)
    return magnitudes.max(axis=1, initial=0.0).astype(np.float32)


def _finite_limit(limit: float) -> float:
    return float(limit) if np.isfinite(limit) and limit > 0 else 1.0


def _pack(
    maps: AttentionMaps,
    layer: int,
    limits: Float[np.ndarray, " head"],
    levels: int,
    codes: UInt8[np.ndarray, "head cell"],
) -> bytes:
    header = {
        "format": FORMAT,
        "layer": layer,
        "heads": codes.shape[0],
        "queries": len(maps.query_tokens),
        "keys": len(maps.key_tokens),
        "causal": _is_triangular(maps),
        "signed": bool(maps.is_signed),
        "levels": levels,
        "scale": _scale(maps),
        "limits": [float(limit) for limit in limits],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return MAGIC + struct.pack("<I", len(text)) + text + codes.tobytes()


def _badges(
    badges: Mapping[Any, Sequence[Any]], heads: list[int]
) -> dict[str, list[dict[str, Any]]]:
    found = {str(head): [_record(badge) for badge in given] for head, given in badges.items()}
    known = {f"{layer}.{head}" for layer, n_heads in enumerate(heads) for head in range(n_heads)}
    unknown = sorted(set(found) - known)
    if unknown:
        raise SiteError(
            f"badges for heads that are not drawn: {', '.join(unknown[:5])}; "
            f"this model has {heads} heads per layer, labelled 'layer.head'"
        )
    return found


def _record(badge: Any) -> dict[str, Any]:
    given = dict(badge) if isinstance(badge, Mapping) else badge._asdict()
    label = str(given.get("label") or given["behaviour"])
    numbers = {name: given[name] for name in ("value", "chance") if given.get(name) is not None}
    return {"label": label, "behaviour": str(given.get("behaviour", label))} | {
        name: float(number) for name, number in numbers.items() if np.isfinite(number)
    }


def _jsonable(line: Float[np.ndarray, " cell"]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in line]
