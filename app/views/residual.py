"""What the residual page shows, from plain values: no callbacks, no models."""

from typing import Any

from app.fields import PageState
from app.tables import data_table
from workbench.lens import LogitLens


def lens(found: LogitLens, state: PageState) -> Any:
    """The grid."""
    return data_table(found.table(), label="x", tokens=("token", "predicted"))


def lens_code(state: PageState) -> str:
    """Python of the lens."""
    return "x"
