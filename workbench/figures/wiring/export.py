"""One HTML file that holds the wiring viewer and its pictures: opens offline, asks nothing of any network."""

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

from workbench.figures.wiring.payload import payload
from workbench.figures.wiring.script import WIRING_CSS, WIRING_JS
from workbench.training.wiring_picture import WiringPicture
from workbench.training.wiring_series import WiringSeries
from workbench.writing import write_atomically

_BOOT = """
const given = JSON.parse(document.getElementById("data").textContent);
window.views = given.map((one) => {
  const place = document.createElement("section");
  document.getElementById("views").append(place);
  return window.wiring.mount(place, one, { title: true, slider: true });
});
"""
_PAGE_CSS = """
body { margin: 20px; background: #ffffff; }
@media (prefers-color-scheme: dark) { body { background: #171a21; } }
#views { display: grid; gap: 32px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
"""


def wiring_html(shown: WiringPicture | WiringSeries, path: str | Path) -> Path:
    """Write a picture, or a series with a slider over its steps, as one page.

    Raises:
        WorkbenchError: the folder cannot be written to.
    """
    path = Path(path)
    write_atomically(path, wiring_page([payload(shown)]))
    return path


def wiring_page(payloads: list[dict[str, Any]]) -> str:
    """Pictures side by side as the text of a page; its policy forbids every request and any other script."""
    script = WIRING_JS + _BOOT
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
    names = ", ".join(str(one["title"]) for one in payloads)
    title = html.escape(f"{names}: wiring".encode(errors="replace").decode())
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{WIRING_CSS}{_PAGE_CSS}</style>\n"
        f'<main id="views"></main>\n<script type="application/json" id="data">{_inert(payloads)}</script>\n'
        f"<script>{script}</script>\n</html>\n"
    )


def _inert(data: Any) -> str:
    """JSON without a character that HTML could read: a label may be `</script>`."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
