"""The routes that the training page's pictures are read from: a snapshot's wiring, as the browser draws it."""

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask, Response, jsonify, request

from app.cache import ByteCache
from app.trainings import Trainings
from workbench.errors import ConfigError, UnsupportedError, WorkbenchError

MAX_PICTURES = 128 << 20
MIN_LINES, MAX_LINES, ALL_LINES = 1500, 20_000, 400_000


def register(server: Flask, runs: Trainings) -> None:
    """Add the routes to a Flask server."""
    pictures: ByteCache[bytes] = ByteCache(MAX_PICTURES, len)

    def answer(key: tuple[Any, ...], make: Callable[[], dict[str, Any]]) -> Any:
        content = pictures.get(key)
        if content is None:
            text = json.dumps(make(), allow_nan=False)
            content = gzip.compress(text.encode(), 5, mtime=0)
            pictures.put(key, content)
        return _compressed(content)

    @server.get("/api/runs/<name>/wiring/<int:last>")
    def series(name: str, last: int) -> Any:
        """Every snapshot up to a step, as frames of one picture."""
        try:
            folder = runs.find(name)
            steps = [step for step in runs.frames(folder) if step <= last]
            key = (name, runs.weights_stamp(folder, None), *steps)
            return answer(key, lambda: series_payload(runs, name, steps))
        except (WorkbenchError, OSError) as error:
            return jsonify(error=str(error)), 404

    @server.get("/api/runs/<name>/wiring/<int:step>/beside/<other>/<int:other_step>")
    def beside(name: str, step: int, other: str, other_step: int) -> Any:
        """One snapshot, drawn to the scale of itself and another run's."""
        try:
            pair = ((name, step), (other, other_step))
            key = tuple((*each, runs.weights_stamp(runs.find(each[0]), each[1])) for each in pair)
            return answer(key, lambda: beside_payload(runs, *pair))
        except (WorkbenchError, OSError) as error:
            return jsonify(error=str(error)), 404


def series_payload(runs: Trainings, name: str, steps: Sequence[int]) -> dict[str, Any]:
    """The frames of a run, with as many lines each as a browser draws at once.

    Raises:
        WorkbenchError: no snapshot, or a broken one.
    """
    from workbench.figures.wiring import payload
    from workbench.training.wiring_series import wiring_series

    if not steps:
        raise UnsupportedError(f"{name} has no snapshot yet")
    networks = [runs.network(name, step) for step in steps]
    limit = max(MIN_LINES, min(MAX_LINES, ALL_LINES // len(steps)))
    shown = wiring_series(networks, steps, runs.layout(name, networks[0]), limit=limit)
    return payload(shown, title=runs.find(name).plan.name)


def beside_payload(
    runs: Trainings, first: tuple[str, int], second: tuple[str, int]
) -> dict[str, Any]:
    """The picture of the first; networks of unlike shape have each their own scale.

    Raises:
        WorkbenchError: no such run or snapshot.
    """
    from workbench.figures.wiring import payload
    from workbench.training.wiring_picture import wiring_picture

    pictures = []
    for name, step in (first, second):
        network = runs.network(name, step)
        pictures.append(wiring_picture(network, runs.layout(name, network), limit=MAX_LINES))
    title = f"{runs.find(first[0]).plan.name}, step {first[1]:,}"
    try:
        return payload(pictures[0], like=pictures[1:], title=title)
    except ConfigError:
        return payload(pictures[0], title=title)


def _compressed(content: bytes) -> Response:
    """With a tag, so that who scrubs back is told so in a few bytes."""
    accepted = "gzip" in request.headers.get("Accept-Encoding", "").lower()
    body = content if accepted else gzip.decompress(content)
    response = Response(body, mimetype="application/json")
    if accepted:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
