"""The wiring picture on a page, what a unit responds to, and pruning under a slider.

`wiring_panel` is drawn by assets/g-wiring.js. Beside the picture stand stores that a page reads and writes:

    <id>-data       the payload, {"src": address to fetch it from}, or None
    <id>-threshold  lines below this |weight| are not drawn; None = all
    <id>-frame      which snapshot of a series is shown
    <id>-dot        {"group", "index", "label"} of the unit that was chosen last, or None

`register_wiring(app, id)` adds the callbacks that join them; `register_pruning` those of the slider.
"""

from typing import Any

from dash import html

from workbench.training.modularity.pruning_curve import PruningCurve
from workbench.training.responses import Responses


def wiring_panel(payload: dict[str, Any] | None, id: str, *, label: str = "Wiring") -> html.Div:
    """A place for a picture, and its stores.

    Args:
        payload: `workbench.figures.wiring.payload(…)`, or {"src": address}; it may be put in the store later.
        label: what screen readers call it.
    """
    raise NotImplementedError


def register_wiring(app: Any, id: str) -> None:
    """The callbacks of one picture, in the browser alone."""
    raise NotImplementedError


def responses_panel(responses: Responses) -> html.Div:
    """What a unit responds to, and its strongest wires."""
    raise NotImplementedError


def pruning_panel(curve: PruningCurve, threshold: float | None, id: str) -> html.Div:
    """The loss at every measured threshold, and a slider over them.

    Args:
        threshold: where the slider stands at first; None = nothing is cut.
        id: of the slider; `<id>-curve` holds the numbers, `<id>-said` tells them.
    """
    raise NotImplementedError


def register_pruning(app: Any, id: str, picture: str) -> None:
    """The slider sets the threshold of a picture, and says what was measured there."""
    raise NotImplementedError
