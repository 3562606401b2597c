"""The report as one HTML file: plotly.js inside, no network, figures drawn when they come into view.

Whatever names and tokens hold, it is text: Jinja escapes it, figures stand as JSON that cannot end its element,
and the page's own policy runs no script but the two whose hashes it names, and loads nothing.
"""

import base64
import hashlib
import re
from dataclasses import fields
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from probes.report.content import Content
from probes.report.overview import CAPTION
from probes.report.tables import shown


def page(content: Content) -> str:
    """The whole file."""
    environment = Environment(
        loader=PackageLoader("probes.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Raw HTML in it stays text.
    environment.filters["markdown"] = lambda text: Markup(MarkdownIt("js-default").render(text))
    environment.filters["shown"] = shown
    scripts = [_plotly(), _asset("report.js")]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    # One level, so that texts of tables are not copied.
    given = {field.name: getattr(content, field.name) for field in fields(content)}
    return environment.get_template("report.html.j2").render(
        **given,
        policy=policy,
        training_caption=CAPTION,
        style=Markup(_asset("report.css")),
        scripts=[Markup(script) for script in scripts],
    )


def _asset(name: str) -> str:
    return (files("probes.report") / "templates" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    # Parsers of HTML read other line ends as this one, and the hash is of what they read.
    return re.sub("\r\n?", "\n", script)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
