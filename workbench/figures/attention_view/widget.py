"""The viewer in a notebook, as an anywidget. Imported only when one is made: anywidget is not light."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from workbench.attention import AttentionMaps, pattern_maps
from workbench.errors import WorkbenchError
from workbench.figures.attention_view.export import attention_page
from workbench.figures.attention_view.payload import (
    drawn_layers,
    encode_layer,
    exact_cross,
    view_meta,
)
from workbench.figures.attention_view.script import VIEWER_CSS, VIEWER_JS
from workbench.runs import Run
from workbench.writing import write_atomically

# Up to this many cells every layer travels with the widget, so that a saved notebook shows it too.
EAGER_CELLS = 4_000_000


class AttentionWidget(anywidget.AnyWidget):
    """Heads, one head large, and the tokens; `state` follows what the reader chooses, and can be set."""

    _esm = VIEWER_JS + ("\nexport default { render: globalThis.WorkbenchAttention.render };\n")
    _css = VIEWER_CSS

    meta = traitlets.Dict().tag(sync=True)
    payloads = traitlets.Dict().tag(sync=True)
    theme = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(640).tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        maps: AttentionMaps,
        *,
        badges: Mapping[Any, Any] | None = None,
        theme: str = "",
        height: int = 640,
    ) -> None:
        layers = drawn_layers(maps)
        eager = sum(layer.size for layer in layers.values()) <= EAGER_CELLS
        self._maps = maps
        self._badges = badges
        super().__init__(
            meta=view_meta(maps, badges),
            payloads={str(i): encode_layer(maps, i) for i in layers if eager},
            theme=theme,
            height=height,
        )
        self.on_msg(self._answer)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML file that shows this view offline; whole or not at all."""
        options: dict[str, Any] = {"state": dict(self.state), "height": None}
        if self.theme:
            options["theme"] = self.theme
        path = Path(path)
        write_atomically(path, attention_page(self._maps, badges=self._badges, options=options))
        return path

    def _answer(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Send the layer or the exact line that the page asked for, or what is wrong with the question."""
        reply: dict[str, Any] = {"id": content.get("id") if isinstance(content, dict) else None}
        buffers: list[bytes] = []
        try:
            if content["ask"] == "layer":
                buffers = [encode_layer(self._maps, int(content["layer"]))]
            else:
                place = (int(content[name]) for name in ("layer", "head", "pos"))
                reply["cross"] = exact_cross(self._maps, *place)
        except (WorkbenchError, KeyError, TypeError, ValueError) as error:
            reply["error"] = str(error)
        self.send(reply, buffers)


def widget_of(
    run_or_maps: Run | AttentionMaps,
    *,
    row: int = 0,
    badges: Mapping[Any, Any] | None = None,
    theme: str = "",
    height: int = 640,
) -> AttentionWidget:
    """The widget of a run's patterns, or of any maps."""
    maps = pattern_maps(run_or_maps, row) if isinstance(run_or_maps, Run) else run_or_maps
    return AttentionWidget(maps, badges=badges, theme=theme, height=height)
