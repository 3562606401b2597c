"""One HTML file that holds the viewer and all its data: opens offline, asks nothing of any network."""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.attention import AttentionMaps
from workbench.figures.attention_view.payload import (
    drawn_layers,
    encode_layer,
    exact_cross,
    view_meta,
)
from workbench.figures.attention_view.script import VIEWER_CSS, VIEWER_JS

# Beyond this the file carries only the picture's 8-bit codes, and the viewer marks values with "≈".
MAX_EXACT_CELLS = 2_000_000

_BOOT = """
const data = JSON.parse(document.getElementById("data").textContent);
const source = WorkbenchAttention.sources.embedded(data);
globalThis.view = WorkbenchAttention.mount(document.getElementById("view"), source, data.options);
"""
_PAGE_CSS = """
body { margin: 16px; }
body:has(.wba[data-wba-theme="dark"]) { background: #171a21; }
"""


def attention_page(
    maps: AttentionMaps,
    *,
    badges: Mapping[Any, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The page as text; its own policy forbids every request and every script but the viewer.

    Args:
        options: the viewer's `theme`, `state` and `height`.
    """
    layers = drawn_layers(maps)
    data: dict[str, Any] = {
        "meta": view_meta(maps, badges),
        "layers": {index: _base64(encode_layer(maps, index)) for index in layers},
        "options": dict(options or {}),
    }
    if sum(layer.size for layer in layers.values()) <= MAX_EXACT_CELLS:
        data["exact"] = {index: {"data": _base64(_exact(maps, index))} for index in layers}
    script = VIEWER_JS + _BOOT
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    style = VIEWER_CSS + _PAGE_CSS
    title = html.escape(f"{maps.title}: attention".encode(errors="replace").decode())
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n"
        f'<main id="view"></main>\n<script type="application/json" id="data">{_inert(data)}</script>\n'
        f"<script>{script}</script>\n</html>\n"
    )


def _inert(data: Any) -> str:
    """JSON without a character that HTML could read: a token may be `</script>`."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode("ascii")


def _exact(maps: AttentionMaps, layer: int) -> bytes:
    """All float32 of a layer, head by head and query by query; NaN where no cell exists."""
    rows = [
        exact_cross(maps, layer, head, query)["row"]
        for head in range(len(drawn_layers(maps)[layer]))
        for query in range(len(maps.query_tokens))
    ]
    return gzip.compress(np.array(rows, dtype="<f4").tobytes(), 6, mtime=0)
