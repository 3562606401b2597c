"""The routes that the attention viewer reads: numbers by the key of a view, never by a prompt.

A key that has left the cache answers 404; the page then asks for its view again, which makes the key anew.
"""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from app.session import Session, Shown
from app.state import read_selection
from app.views import attention as views
from workbench.errors import WorkbenchError
from workbench.figures.attention_view import VIEWER_CSS, VIEWER_JS, attention_page, payload
from workbench.figures.wiring.script import WIRING_CSS, WIRING_JS

VIEWER_FILES = {
    "viewer.js": (VIEWER_JS, "text/javascript"),
    "viewer.css": (VIEWER_CSS, "text/css"),
    "wiring.js": (WIRING_JS, "text/javascript"),
    "wiring.css": (WIRING_CSS, "text/css"),
}
_GONE = "this view is no longer in the server's memory: it will be computed again"


def register(server: Flask, session: Session) -> None:
    """Add the routes to a Flask server."""
    for rule, answer in ROUTES.items():
        server.add_url_rule(
            f"/api/attention/<key>{rule}",
            endpoint=f"attention_{answer.__name__}",
            view_func=_by_key(session, answer),
        )

    @server.get("/api/training/<path:name>")
    def training(name: str) -> Any:
        try:
            steps = session.info(name).steps
        except WorkbenchError as error:
            return _failure(str(error), 404)
        curve = session.curve(name) if steps else {}
        return _json({"state": "working"} if curve is None else {"state": "done", "curve": curve})

    @server.get("/api/training")
    def training_of() -> Any:
        # A name that is an absolute path would lose its first slash inside an address.
        return training(request.args.get("model", ""))

    @server.get("/viewer/<name>")
    def viewer_file(name: str) -> Any:
        if name not in VIEWER_FILES:
            return _failure(f"no file {name[:40]!r}", 404)
        content, kind = VIEWER_FILES[name]
        return Response(content, mimetype=kind, headers={"Cache-Control": "no-cache"})

    @server.get("/api/<path:rest>")
    def unknown(rest: str) -> tuple[Response, int]:
        return _failure(f"no address /api/{rest[:80]}", 404)

    @server.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Any:
        if request.path.startswith("/api/"):
            return _failure(error.description or error.name, error.code or 500)
        return error


def _by_key(session: Session, answer: Callable[..., Response]) -> Callable[..., Any]:
    def checked(key: str, **place: int) -> Any:
        shown = session.shown(key) if re.fullmatch(r"[0-9a-f]{32}", key) else None
        if shown is None:
            return _failure(_GONE, 404)
        try:
            return answer(session, shown, **place)
        except WorkbenchError as error:
            return _failure(str(error), 404)

    return checked


def _meta(session: Session, shown: Shown) -> Response:
    return _json(payload.view_meta(shown.maps, session.known_badges(shown.view)))


def _badges(session: Session, shown: Shown) -> Response:
    found = session.badges(shown.view)
    if found is None:
        return _json({"state": "working"})
    return _json({"state": "done", "meta": payload.view_meta(shown.maps, found)})


def _layer(session: Session, shown: Shown, layer: int) -> Response:
    return _compressed(session.encoded(shown, layer), "application/octet-stream")


def _cross(session: Session, shown: Shown, layer: int, head: int, pos: int) -> Response:
    return _json(payload.exact_cross(shown.maps, layer, head, pos))


def _page(session: Session, shown: Shown) -> Response:
    selection, _ = read_selection(request.args)
    content = attention_page(
        replace(shown.maps, title=views.title(shown)),
        badges=session.known_badges(shown.view),
        options={"state": selection.as_viewer_state()} if selection.head else {},
    )
    name = views.file_name(shown.view)
    headers = {"Content-Disposition": f'attachment; filename="{name}.html"'}
    return Response(content, mimetype="text/html", headers=headers)


ROUTES: dict[str, Callable[..., Response]] = {
    "/meta": _meta,
    "/badges": _badges,
    "/layer/<int:layer>": _layer,
    "/cross/<int:layer>/<int:head>/<int:pos>": _cross,
    "/page.html": _page,
}


def _json(value: Any) -> Response:
    content = gzip.compress(json.dumps(value, allow_nan=False).encode(), 6, mtime=0)
    return _compressed(content, "application/json")


def _compressed(content: bytes, mimetype: str) -> Response:
    """A gzip body with a tag, so that a browser that has it is told so in a few bytes."""
    accepted = "gzip" in request.headers.get("Accept-Encoding", "").lower()
    response = Response(content if accepted else gzip.decompress(content), mimetype=mimetype)
    if accepted:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response


def _failure(message: str, code: int) -> tuple[Response, int]:
    return jsonify(error=message), code
