"""A real Chromium for tests: nothing may leave the machine; a console error fails the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.session import Session
from tests.serving import running

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LOOPBACK = ("127.0.0.1", "localhost")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            # A real browser on a busy machine is late at times; what fails twice in a row is broken.
            item.add_marker(pytest.mark.flaky(reruns=1))
    # Last: Playwright keeps an event loop running in this thread, which `asyncio.run` elsewhere refuses.
    items.sort(key=lambda item: here in item.path.parents)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One headless Chromium for the whole session."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium")
    sync_api.expect.set_options(timeout=15_000)  # shared machines are slow at times
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), headless=True, args=FLAGS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """`serve(app)`: the address of a WSGI callable, or of anything that has one as `.server`."""
    from werkzeug.serving import make_server

    servers = []

    def start(app: Any) -> str:
        server = make_server("127.0.0.1", 0, getattr(app, "server", app), threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dashboard() -> Iterator[Callable[[Session], str]]:
    """`dashboard(session)`: the address of a dashboard that is there until every page is closed."""
    with ExitStack() as servers:
        yield lambda session: servers.enter_context(running(session))


@pytest.fixture
def open_page(browser: Any, serve: Any, dashboard: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(**context_options)`: a page whose `.errors` and `.external` must stay empty."""
    # It asks for the servers so that pages, which may ask them every second, close before they do.
    opened = []

    def start(**options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        context = browser.new_context(**options)
        page = context.new_page()
        page.errors, page.external = [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))

        def gate(route: Any) -> None:
            host = route.request.url.split("/")[2].rsplit(":", 1)[0]
            if host in LOOPBACK:
                route.continue_()
            else:
                page.external.append(route.request.url)
                route.abort()

        context.route("http*://**/*", gate)
        opened.append(page)
        return page

    yield start
    for page in opened:
        page.context.close()
    for page in opened:
        assert not page.external, f"the page asked for {page.external}"
        assert not page.errors, page.errors


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Any:
    """A page of 1280x800 that fails its test on any external request or console error."""
    return open_page()
