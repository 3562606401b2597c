"""How tokens are written in figures and tables: no character that the eye cannot see.

The same signs as in attention_view/viewer/words.js: `·` is a space, `↵` a new line, `⇥` a tab.
"""

import html
import re

_SIGNS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}
_UNSEEN = re.compile(
    "[\u0000-\u0020\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def visible(token: str) -> str:
    """The token with signs for whitespace, control and direction characters; `∅` if it is empty."""
    if not token:
        return "∅"
    return _UNSEEN.sub(lambda found: _SIGNS.get(found[0]) or f"⟨{ord(found[0]):04X}⟩", token)


def figure_text(token: str, most: int = 24) -> str:
    """The visible token as plotly may print it: cut to `most` characters, its markup escaped."""
    shown = visible(token)
    # Plotly knows no `&quot;`, and would print it as it stands.
    return html.escape(shown if len(shown) <= most else shown[: most - 1] + "…", quote=False)
