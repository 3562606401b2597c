"""Serving the dashboard: one process, local unless told otherwise, never a debug server."""

import errno
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import waitress

from app.initial import initial_view
from app.main import create_app
from app.report_desk import ReportDesk
from app.security import is_loopback
from app.session import Session
from app.trainings import Trainings
from workbench.errors import WorkbenchError
from workbench.models import list_models, own_model

MAX_HEADER_BYTES = 256 << 10
STOP_SECONDS = 1.0


class ServeError(WorkbenchError):
    """The address or port cannot be served on."""


def serve(  # noqa: PLR0913  # each is an option of the command
    host: str = "127.0.0.1",
    port: int = 8050,
    *,
    token: str | None = None,
    own_models: Sequence[str] = (),
    runs: str | Path | None = None,
    reports: str | Path | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C; work that is still running then is cut off with the process.

    Args:
        host: an address of this machine; anything but loopback demands a token, made here if not given.
        token: what visitors must show once, as `?token=…`.
        own_models: paths of models to offer beside the named ones.
        runs: folder of training runs, made when the first is started; None = the training page starts none.
        reports: folder of probe reports, likewise.
        announce: is told the address to open.

    Raises:
        ServeError: the port is taken, or the address is not this machine's.
        UnknownModelError: nothing at the path of an own model.
    """
    own = [own_model(path) for path in own_models]
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    kept = Trainings(None if runs is None else Path(runs), reads_files=is_loopback(host))
    desk = ReportDesk(None if reports is None else Path(reports), reads_files=is_loopback(host))
    session = Session(list_models=lambda: [*own, *list_models()], runs=kept, reports=desk)
    server = make_server(session, host, port, token=token)
    announce(f"Interpretability workbench: {address(host, server.effective_port, token)}")
    announce("Stop with Ctrl-C")
    threading.Thread(target=_warm, args=(session,), daemon=True).start()
    # A service manager's stop ends like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run()
    finally:
        server.close()
        announce("Stopped")
        if not session.close(wait=STOP_SECONDS):
            # A model is being loaded or run. Python would wait for its thread, or crash inside torch.
            sys.stdout.flush()
            os._exit(0)


def make_server(
    session: Session, host: str, port: int, *, token: str | None, threads: int = 8
) -> Any:
    """A bound waitress server of a session.

    Raises:
        ServeError: as `serve`; also a public address without a token.
    """
    if not is_loopback(host) and not token:
        raise ServeError(f"{host} can be reached from other machines: give a token")
    if not 0 <= port <= 65535 or threads < 1:
        raise ServeError(
            f"port {port} with {threads} threads: ports run from 0 to 65535, threads from 1"
        )
    names = () if is_loopback(host) else (host, socket.gethostname())
    app = create_app(session, hosts=names, token=token)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    listener = _listen(host, port)
    return waitress.create_server(
        app.server,
        sockets=[listener],
        threads=threads,
        ident=None,
        max_request_header_size=MAX_HEADER_BYTES,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; made here, since waitress leaves its own pipes open when it cannot bind."""
    name = host.strip("[]")
    try:
        family = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((name, port), family=family)
    except (OSError, UnicodeError) as error:
        raise ServeError(_reason(host, port, error)) from error


def address(host: str, port: int, token: str | None) -> str:
    """What to open in a browser."""
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    name = "127.0.0.1" if name in ("0.0.0.0", "[::]") else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _reason(host: str, port: int, error: Exception) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken by another program: stop it, or choose another port "
            f"(--port {port + 1})"
        )
    if code == errno.EACCES:
        return f"port {port} may not be opened by this user: choose one above 1023"
    return f"cannot serve on {host}:{port}: {error}"


def _warm(session: Session) -> None:
    """Compute the first screen before anyone asks for it."""
    try:
        view, _, _ = initial_view(session, {})
        session.request(view)
    except WorkbenchError:
        logging.getLogger("workbench.app").warning("no model to show at first", exc_info=True)
