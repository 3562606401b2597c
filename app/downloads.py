"""Routes by the key of an answer, never by a query: its table as Parquet or CSV, and who waits no more."""

import tempfile
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request

from app.analyses import Kept
from app.session import Session
from workbench.errors import WorkbenchError
from workbench.results import provenance, save_table

_GONE = "this table is no longer in the server's memory: open its page again"
MAX_KEYS = 64
TYPES = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv; charset=utf-8"}


def register(server: Flask, session: Session) -> None:
    """Add the routes to a Flask server."""

    @server.post("/api/leave")
    def leave() -> tuple[str, int]:
        """A visitor's page is gone: it names what it still waited for."""
        keys = request.get_json(silent=True)
        for key in keys[:MAX_KEYS] if isinstance(keys, list) else []:
            if isinstance(key, str):
                session.analyses.leave(key)
                session.trained.leave(key)
        return "", 204

    @server.get("/api/table/<name>")
    def table(name: str) -> Any:
        key, _, ending = name.partition(".")
        kept = session.analyses.find(key) or session.trained.find(key)
        if ending not in TYPES:
            return jsonify(error=f"tables are {' or '.join(TYPES)} files"), 404
        if kept is None:
            return jsonify(error=_GONE), 404
        try:
            content = table_file(kept, ending)
        except WorkbenchError as error:
            return jsonify(error=str(error)), 404
        question = kept.question
        step = "" if question.step is None else f"-step-{question.step}"
        title = f"{question.name}-{_plain(question.model)}{step}.{ending}"
        headers = {"Content-Disposition": f'attachment; filename="{title}"'}
        return Response(content, mimetype=TYPES[ending], headers=headers)


def table_file(kept: Kept, ending: str) -> bytes:
    """The table of an answer as a file's content.

    Raises:
        WorkbenchError: an answer without a table.
    """
    frame = kept.table()
    if ending == "csv":
        return frame.to_csv(index=False).encode()
    question = kept.question
    made_by = provenance(
        analysis=question.name,
        model=question.model,
        step=question.step,
        arguments=dict(question.arguments),
        seconds=round(kept.seconds, 3),
    )
    with tempfile.TemporaryDirectory() as folder:
        return save_table(frame, Path(folder) / "table.parquet", made_by).read_bytes()


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name)[:80]
