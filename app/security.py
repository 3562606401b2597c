"""What stands between the dashboard and other websites: local names, same origin, JSON, sizes, a token, CSP.

A page on another site can make the browser send requests to 127.0.0.1, and by DNS rebinding even read the
answers. Dash checks neither Host nor Origin; this gate does, before any callback runs.
"""

import hmac
import ipaddress
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from dash import Dash
from flask import Flask, Response, abort, make_response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
MAX_REQUEST_BYTES = 2 << 20
_READING = ("GET", "HEAD", "OPTIONS")


def host_name(host: str) -> str:
    """The name in a Host header, without port; an IPv6 address keeps its brackets."""
    try:
        name = urlsplit("//" + host).hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name


def is_loopback(host: str) -> bool:
    """Whether binding to this address keeps the server on this machine."""
    return host in {"127.0.0.1", "localhost", "::1", "[::1]"}


def harden(app: Dash, *, hosts: tuple[str, ...] = (), token: str | None = None) -> None:
    """Guard every route of a finished app; call it after the last callback is registered.

    Args:
        hosts: names, besides the local ones, under which the server may be addressed.
        token: what a visitor must show once, as `?token=…` or as a Bearer header; None asks for nothing.
    """
    server: Flask = app.server
    server.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    server.secret_key = secrets.token_bytes(32)
    allowed = LOCAL_NAMES | {name.lower() for name in hosts}
    # Cookies ignore ports: a name of its own keeps two servers of one machine apart.
    cookie = "workbench_" + secrets.token_hex(4)

    def is_allowed(name: str) -> bool:
        # DNS rebinding needs a name; where a token guards the server, its numeric addresses may be used.
        return name in allowed or (token is not None and _is_numeric(name))

    @server.before_request
    def gate() -> BaseResponse | None:
        _check_origin(is_allowed)
        answer = None if token is None else _check_token(token, cookie)
        if answer is None:
            _check_for_dash(app)
        return answer

    policy = content_security_policy(app)

    @server.after_request
    def headers(response: Response) -> Response:
        response.headers.update(
            {
                "Content-Security-Policy": policy,
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
            }
        )
        return response


def content_security_policy(app: Dash) -> str:
    """The policy that the page runs under: own scripts, no eval, nothing from elsewhere."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {' '.join(app.csp_hashes())}",
            # Mantine writes its theme variables into style elements and attributes.
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def _is_numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _check_origin(is_allowed: Callable[[str], bool]) -> None:
    if not is_allowed(host_name(request.host)):
        abort(421, "this server does not answer to that host name")
    if request.method in _READING:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in (None, "same-origin", "none"):
        abort(403, "requests from other sites are refused")
    if origin and urlsplit(origin).netloc != request.host:
        abort(403, "requests from other origins are refused")
    if not request.is_json:
        abort(415, "send JSON")
    # Flask's own limit only strikes when a callback reads the body; a stated length is refused at the door.
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        abort(413, f"requests are limited to {MAX_REQUEST_BYTES >> 20} MiB")


def _check_for_dash(app: Dash) -> None:
    """Refuse what Dash would answer with a trace in the log."""
    package = (request.view_args or {}).get("package_name")
    if package is not None and package not in app.registered_paths:
        abort(404, "no such file")
    if request.method == "POST" and request.path == "/_dash-update-component":
        body = request.get_json(silent=True)
        if not isinstance(body, dict) or not all(map(_is_values, _values_of(body))):
            abort(400, "not a callback of this page")
        if not isinstance(body.get("output"), str) or body["output"] not in app.callback_map:
            abort(400, "no such callback")


def _values_of(body: dict[str, Any]) -> list[Any]:
    return [body.get("inputs"), body.get("state", []), body.get("changedPropIds", [])]


def _is_values(given: Any) -> bool:
    """Whether these are a callback's arguments: named properties, or lists of them for patterns."""
    return isinstance(given, list) and all(
        isinstance(item, str)
        or (isinstance(item, dict) and {"id", "property"} <= item.keys())
        or _is_values(item)
        for item in given
    )


def _check_token(token: str, cookie: str) -> BaseResponse | None:
    def matches(given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())

    header = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if matches(request.cookies.get(cookie, "")) or matches(header):
        return None
    if request.method != "GET" or not matches(request.args.get("token", "")):
        abort(401, "open the address with the ?token=… that the server printed when it started")
    # The token leaves the address bar, hence history and shared links; the rest of the query stays.
    rest = urlencode([item for item in request.args.items(multi=True) if item[0] != "token"])
    response = make_response(
        redirect("/" + request.path.lstrip("/") + ("?" + rest if rest else ""))
    )
    response.set_cookie(cookie, token, httponly=True, samesite="Strict", secure=request.is_secure)
    return response
