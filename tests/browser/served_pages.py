"""One dashboard over the bundled models on a real waitress server, for the browser tests of its pages."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def served(name: str = "attn-2l") -> Iterator[str]:
    """The address of a running dashboard; skips where the model is missing."""
    from waitress import wasyncore

    from app.server import make_server
    from app.session import Session
    from workbench.models import list_models

    if name not in [info.name for info in list_models() if info.available]:
        pytest.skip(f"no {name} here")
    session = Session()
    server = make_server(session, "127.0.0.1", 0, token=None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()
    session.close(wait=60)
    server.task_dispatcher.shutdown()
    thread.join(10)
    wasyncore.close_all(server._map, ignore_all=True)
