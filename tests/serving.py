"""Real waitress servers that tests start and end without leaving a socket or a thread behind."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from waitress import wasyncore

from app.server import make_server
from app.session import Session
from workbench.models import list_models


@contextmanager
def running(session: Session) -> Iterator[str]:
    """The address of a dashboard over a session, on a port that was free."""
    server = make_server(session, "127.0.0.1", 0, token=None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        session.close(wait=60)
        server.task_dispatcher.shutdown()  # before: a thread that still answers needs the open server
        # In the loop's own thread, between two waits: nothing is closed under what waits for it.
        server.trigger.pull_trigger(lambda: _close(server))
        thread.join(10)
    assert not thread.is_alive()


def _close(server: Any) -> None:
    for channel in list(server.active_channels.values()):
        channel.handle_close()  # its buffers too, which may be files
    wasyncore.close_all(server._map, ignore_all=True)


@contextmanager
def served(name: str = "attn-2l") -> Iterator[str]:
    """The address of a dashboard over the bundled models; skips where one is missing."""
    if name not in [info.name for info in list_models() if info.available]:
        pytest.skip(f"no {name} here: run `workbench train {name}`")
    with running(Session()) as address:
        yield address
