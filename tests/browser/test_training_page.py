"""The training page in Chromium: runs are started, watched, stopped, resumed and compared; they outlive it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from app.session import Session
from app.trainings import Trainings
from workbench.training.plan import presets
from workbench.training.run_folder import RunFolder, create
from workbench.training.working import work

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
PLAN = presets()["bimt-independence/bimt"]
LONG = replace(PLAN, name="long", steps=400_000, snapshots=1000)
SLOW = 40_000


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with one small finished run."""
    root = tmp_path_factory.mktemp("runs")
    work(create(root, replace(PLAN, name="small", steps=120, snapshots=4, swap_every=40)))
    yield root
    for path in root.iterdir():
        stop(RunFolder(path))


def stop(folder):
    """No process of a test outlives it."""
    until = time.monotonic() + 20
    while folder.is_alive and time.monotonic() < until:
        if folder.status.pid:
            os.kill(folder.status.pid, signal.SIGKILL)
        time.sleep(0.05)


def query_of(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_until(page, condition):
    until = time.monotonic() + SLOW / 1000
    while not condition():
        assert time.monotonic() < until, page.url
        page.wait_for_timeout(100)


def n_snapshots(page):
    return int(page.locator("#run-scrub [role=slider]").get_attribute("aria-valuemax"))


def n_points(page):
    """How long the first curve is, as it is drawn."""
    graph = "document.querySelector('#run-losses .js-plotly-plot')"
    return page.evaluate(f"{graph}?.calcdata?.[0]?.length ?? 0")


def picture(page):
    """What is drawn of the wiring."""
    return page.locator("#run-wiring canvas").first.evaluate("canvas => canvas.toDataURL()")


def test_a_run_is_started_watched_cancelled_resumed_and_compared(open_page, dashboard, root):
    address = dashboard(Session(runs=Trainings(root)))
    page = open_page()
    page.goto(f"{address}/training?new=bimt-independence")
    expect(page.locator("#plan-estimate")).to_contain_text("562 parameters", timeout=2 * SLOW)
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("many")
    expect(page.locator(".plan-cell .plan-error:not(:empty)").first).to_contain_text("no number")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    steps.fill(str(LONG.steps))
    page.get_by_label("Snapshots", exact=True).fill(str(LONG.snapshots))
    page.get_by_label("Name", exact=True).fill("long")
    expect(page.locator(".plan-cell .plan-error:not(:empty)")).to_have_count(0)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#run-state-word")).to_have_text("running", timeout=SLOW)
    name = query_of(page)["run"]
    # Wiring and curves move while it trains, and the list says how far it is.
    wait_until(page, lambda: n_snapshots(page) > 2)
    expect(page.locator("#run-wiring canvas").first).to_be_visible()
    expect(page.locator("#run-losses .scatterlayer .trace")).to_have_count(3, timeout=SLOW)
    expect(page.locator("#run-measures .scatterlayer .trace").first).to_be_attached()
    seen, points, drawn = n_snapshots(page), n_points(page), picture(page)
    wait_until(page, lambda: n_points(page) > points and picture(page) != drawn)
    page.reload()
    wait_until(page, lambda: n_snapshots(page) > seen)
    expect(page.locator("#runs-list .chosen")).to_contain_text("running")
    page.get_by_role("button", name="Cancel", exact=True).first.click()
    expect(page.locator("#run-state-word")).to_have_text("cancelled", timeout=SLOW)
    stopped = RunFolder(root / name).status.step
    assert 0 < stopped < LONG.steps
    assert not RunFolder(root / name).is_alive
    scrub_and_compare(page)
    page.get_by_role("button", name="Resume", exact=True).click()
    wait_until(page, lambda: RunFolder(root / name).status.step > stopped)
    expect(page.locator("#run-state-word")).to_have_text("running", timeout=SLOW)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#run-state-word")).to_have_text("paused", timeout=SLOW)


def scrub_and_compare(page):
    slider = page.locator("#run-scrub [role=slider]")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#run-scrub-value")).to_have_text("0")
    wait_until(page, lambda: query_of(page).get("at") == "0")
    page.get_by_label("Second run").click()
    page.get_by_role("option", name="small").click()
    expect(page.locator("#run-pair-level")).to_contain_text("At a validation loss of", timeout=SLOW)
    expect(page.locator("#run-pair-second canvas").first).to_be_visible()
    wait_until(page, lambda: query_of(page).get("other") == "small")
    expect(page.locator("#run-pruning-slider-said")).to_contain_text("All 5", timeout=SLOW)
    page.locator("#run-pruning-slider [role=slider]").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#run-pruning-slider-said")).to_contain_text("with |w| ≥")
    wait_until(page, lambda: float(query_of(page).get("threshold", 0)) > 0)
    page.locator("#run-wiring [role=application]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    wait_until(page, lambda: "/" in query_of(page).get("dot", ""))
    expect(page.locator("#run-unit")).to_contain_text("Strongest wires", timeout=SLOW)


@pytest.fixture
def port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_run_outlives_the_server_that_started_it_and_is_found_again(
    open_page, dashboard, root, port
):
    address = f"http://127.0.0.1:{port}"
    code = f"from app.server import serve; serve(port={port}, runs={str(root)!r})"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    folder = None
    try:
        wait_for(address)
        page = open_page()
        page.goto(f"{address}/training?new=bimt-independence/bimt")
        page.get_by_label("Name", exact=True).fill("survivor")
        page.get_by_label("Steps", exact=True).fill(str(LONG.steps))
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#run-state-word")).to_have_text("running", timeout=SLOW)
        name = query_of(page)["run"]
        folder = RunFolder(root / name)
        page.goto("about:blank")  # what the page says of a server that is gone is another test's
    finally:
        server.kill()
        server.wait(20)
    assert folder.is_alive
    before = folder.status.step
    wait_until(page, lambda: folder.status.step > before)
    again = dashboard(Session(runs=Trainings(root)))
    page.goto(f"{again}/training")  # the run that goes on is what is shown
    expect(page.locator("#run-head")).to_contain_text("survivor", timeout=SLOW)
    assert query_of(page)["run"] == name
    expect(page.locator("#run-state-word")).to_have_text("running")
    # Its own process is killed: that too is seen, and what was saved is kept.
    stop(folder)
    expect(page.locator("#run-state-word")).to_have_text("interrupted", timeout=SLOW)
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_visible()


def wait_for(address):
    until = time.monotonic() + SLOW / 1000
    while True:
        try:
            return urllib.request.urlopen(f"{address}/training", timeout=10).status
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)


@pytest.mark.parametrize(("width", "scheme"), [(700, "dark"), (1400, "light")])
def test_the_page_fits_its_window_and_says_what_is_not_there(
    open_page, dashboard, root, width, scheme
):
    address = dashboard(Session(runs=Trainings(root)))
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(f"{address}/training?run=../../etc/passwd")
    expect(page.locator("#run-lost")).to_contain_text("no run '../../etc/passwd'", timeout=SLOW)
    page.get_by_role("link", name="small").click()
    expect(page.locator("#run-state-word")).to_have_text("finished", timeout=SLOW)
    expect(page.locator("#run-no-link")).to_contain_text("an MLP has no attention")
    expect(page.locator("#run-wiring canvas").first).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
