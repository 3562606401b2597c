"""The attention viewer: heads as thumbnails, one head large, the text as a strip of tokens.

One script, assembled from `viewer/*.js`, draws it in the dashboard, in notebooks and in exported pages.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.figures.attention_view.export import attention_page
from workbench.figures.attention_view.payload import encode_layer, exact_cross, view_meta
from workbench.figures.attention_view.script import VIEWER_CSS, VIEWER_JS

if TYPE_CHECKING:
    from workbench.figures.attention_view.widget import AttentionWidget

__all__ = [
    "VIEWER_CSS",
    "VIEWER_JS",
    "attention_page",
    "attention_view",
    "encode_layer",
    "exact_cross",
    "view_meta",
]


def attention_view(
    run_or_maps: Any,
    *,
    row: int = 0,
    badges: Mapping[Any, Any] | None = None,
    theme: str = "",
    height: int = 640,
) -> "AttentionWidget":
    """A notebook widget of a run's attention patterns, or of any `AttentionMaps`.

    Args:
        row: which prompt of the run.
        badges: `heads.badges` of the model's scores, or the same per label such as "1.3".
        theme: "light", "dark", or "" for the page's own.
        height: of the whole view, in CSS pixels.
    """
    # anywidget brings ipywidgets and IPython: only a notebook pays for them.
    from workbench.figures.attention_view.widget import widget_of

    return widget_of(run_or_maps, row=row, badges=badges, theme=theme, height=height)
