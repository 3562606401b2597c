"""The files of a report: three names in a known folder, each under a policy that keeps it from everything else.

The page of a report runs scripts of its own, so it is served into an origin of its own (`sandbox`): it can
load nothing, send nothing and read nothing of the dashboard, whatever stands in the file. Its own policy, in
the file, narrows scripts to two hashes.
"""

from typing import Any

from flask import Flask, Response, jsonify, request, send_file

from app.report_desk import ReportDesk
from workbench.errors import WorkbenchError

ENDPOINT = "report_file"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "font-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "sandbox allow-scripts allow-downloads allow-modals",
    )
)
TYPES = {
    "report.html": "text/html",
    "report.md": "text/markdown",
    "findings.parquet": "application/vnd.apache.parquet",
}


def register(server: Flask, desk: ReportDesk) -> None:
    """Add the route to a Flask server; before it is hardened, so that this policy replaces the pages' own."""

    @server.get("/api/reports/<name>/<file>", endpoint=ENDPOINT)
    def product(name: str, file: str) -> Any:
        try:
            path = desk.find(name).product(file)
        except WorkbenchError as error:
            return jsonify(error=str(error)), 404
        if path is None:
            return jsonify(error=f"a report has the files {', '.join(TYPES)}, once written"), 404
        is_page = file == "report.html"
        answer = send_file(
            path.resolve(),
            mimetype=TYPES[file],
            as_attachment=not is_page,
            download_name=f"{_plain(name)}-{file}",
            conditional=True,
        )
        answer.headers["Cache-Control"] = "private, no-cache"
        return answer

    @server.after_request
    def apart(response: Response) -> Response:
        if request.endpoint == ENDPOINT:
            response.headers["Content-Security-Policy"] = POLICY
        return response


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name)[:80]
