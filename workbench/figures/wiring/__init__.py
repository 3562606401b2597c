"""The wiring picture: units as dots, weights as lines as wide as they are large, in a canvas.

    picture = workbench.training.wiring_picture.wiring_picture(model)
    wiring_html(picture, "wiring.html")          payload(picture) is what `window.wiring.mount` draws

One script, assembled from `viewer/*.js`, draws it in the dashboard and in exported pages.
"""

from workbench.figures.wiring.export import wiring_html, wiring_page
from workbench.figures.wiring.payload import payload
from workbench.figures.wiring.script import WIRING_CSS, WIRING_JS

__all__ = ["WIRING_CSS", "WIRING_JS", "payload", "wiring_html", "wiring_page"]
