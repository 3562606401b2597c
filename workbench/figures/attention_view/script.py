"""The viewer's script: the files of `viewer/` in order, inside one function, so that nothing leaks.

They share a scope and stand on their own as text; there is no build step and no module loader, since the
same script runs in the dashboard, in a notebook and in a page opened from a disk.
"""

from pathlib import Path

PARTS = (
    "colours",
    "payload",
    "words",
    "store",
    "head_grid",
    "large_view",
    "token_strip",
    "view",
    "mount",
)
_FOLDER = Path(__file__).parent

VIEWER_JS = "\n".join(
    [
        '(function () {\n"use strict";\n',
        *((_FOLDER / "viewer" / f"{part}.js").read_text(encoding="utf-8") for part in PARTS),
        "})();\n",
    ]
)
VIEWER_CSS = (_FOLDER / "viewer.css").read_text(encoding="utf-8")
