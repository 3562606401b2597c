"""Clocks of panels that wait: each stops when it ticks, and runs again with the answer.

Dash drops the answer to a callback whose input has changed since: a clock that is faster than the server would
never let an answer through.
"""

from collections.abc import Sequence

from dash import ClientsideFunction, Dash, Input, Output

from app.page import Panel


def hold(app: Dash, panels: Sequence[Panel]) -> None:
    """Stop the clock of each panel until its answer starts it again."""
    for panel in panels:
        app.clientside_callback(
            ClientsideFunction("circuits", "hold"),
            Output(panel.frame.tick, "disabled", allow_duplicate=True),
            Input(panel.frame.tick, "n_intervals"),
            prevent_initial_call=True,
        )
