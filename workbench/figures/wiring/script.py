"""The wiring viewer's script: the files of `viewer/` in order, inside one function, so that nothing leaks."""

from pathlib import Path

PARTS = ("data", "look", "paint", "pick", "words", "view", "mount")
_FOLDER = Path(__file__).parent

WIRING_JS = "\n".join(
    [
        '(function () {\n"use strict";\n',
        *((_FOLDER / "viewer" / f"{part}.js").read_text(encoding="utf-8") for part in PARTS),
        "})();\n",
    ]
)
WIRING_CSS = (_FOLDER / "wiring.css").read_text(encoding="utf-8")
