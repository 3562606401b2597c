"""The attention viewer: what it is sent (`payload`), and its script and stylesheet."""

from pathlib import Path

from workbench.figures.attention_view.payload import encode_layer, exact_cross, view_meta

VIEWER_JS = Path(__file__).with_name("viewer.js")
VIEWER_CSS = Path(__file__).with_name("viewer.css")

__all__ = ["VIEWER_CSS", "VIEWER_JS", "encode_layer", "exact_cross", "view_meta"]
