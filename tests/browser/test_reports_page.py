"""The reports page in Chromium: a report is started, killed, resumed, browsed and opened."""

import os
import signal
import time

import pytest

from app.report_desk import ReportDesk
from app.report_folder import ReportFolder
from app.session import Session
from tests.addresses import query_of, wait_for_query
from tests.serving import running
from workbench.models import list_models

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
SLOW = 60_000


@pytest.fixture
def root(tmp_path):
    if "attn-2l" not in [info.name for info in list_models() if info.available]:
        pytest.skip("no attn-2l here: run `workbench train attn-2l`")
    yield tmp_path / "reports"
    # No process of a test outlives it.
    for path in (tmp_path / "reports").glob("*"):
        stop(ReportFolder(path))


def stop(folder):
    until = time.monotonic() + 20
    while folder.is_alive and time.monotonic() < until:
        if folder.standing.pid:
            os.kill(folder.standing.pid, signal.SIGKILL)
        time.sleep(0.05)


def test_a_report_is_started_killed_resumed_browsed_and_opened(open_page, dashboard, root):
    page = open_page(viewport={"width": 1400, "height": 1000})
    state = page.locator("#report-state-word")
    with running(Session(reports=ReportDesk(root))) as address:
        page.goto(f"{address}/reports")
        expect(page.locator("#report-form-title")).to_have_text("Your first report", timeout=SLOW)
        expect(page.locator("#report-estimate")).to_contain_text("1 model, 13 jobs", timeout=SLOW)
        expect(page.get_by_label("Neurons: sparse, dead")).to_be_disabled()
        expect(page.locator(".report-why", has_text="it has no MLPs")).to_be_visible()
        page.get_by_role("button", name="Choose none of the probes").click()
        expect(page.locator("#report-estimate")).to_contain_text("Choose at least one probe")
        expect(page.locator("#report-start")).to_be_disabled()
        for title in ("Pairs of heads: composition", "Heads: geometry of their circuits"):
            page.get_by_label(title).check()
        page.get_by_label("Title").fill("<small>")
        wait_for_query(page, probes="composition,qk-geometry", title="<small>")
        expect(page.locator("#report-estimate")).to_contain_text("2 jobs")
        page.locator("#report-start").click()
        expect(page.locator("#report-running")).to_contain_text("of attn-2l", timeout=SLOW)
        assert query_of(page) == {"report": "small"}
        stop(ReportFolder(root / "small"))
        expect(state).to_have_text("interrupted", timeout=SLOW)
        page.get_by_role("button", name="Resume", exact=True).click()
        expect(page.locator("#report-running")).to_be_visible(timeout=SLOW)
        page.goto("about:blank")
    # Its process goes on without that server, and another finds it.
    address = dashboard(Session(reports=ReportDesk(root)))
    page.goto(f"{address}/reports")
    expect(page.locator("#report-head-title")).to_have_text("<small>")
    expect(state).to_have_text("finished", timeout=SLOW)
    browse(page)
    open_report(page)
    hostile(page, address)


def browse(page):
    value = page.locator("#report-pivot .report-value")
    expect(value).to_have_count(4)
    page.get_by_label("Measure", exact=True).click()
    page.get_by_role("option", name="K-composition").click()
    wait_for_query(page, measure="composition/K-composition")
    expect(page.locator("#report-pivot")).to_contain_text("K-composition of composition")
    expect(value.first).to_have_attribute("href", "/heads?model=attn-2l&head=1.0")
    grid = page.locator("#report-grid")
    grid.locator(".ag-header-cell-text", has_text="value").click()
    wait_for_query(page, order="value:asc")
    expect(grid.locator("[row-index='0'] [col-id='value']")).to_contain_text("−")
    expect(page.locator("#report-jobs-table")).to_contain_text("qk-geometry")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 1400


def open_report(page):
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open the report").click()
    report, said = opened.value, []
    report.on("console", lambda message: said.append(message.text))
    report.locator(".plot").first.scroll_into_view_if_needed()
    expect(report.locator(".plot svg").first).to_be_attached()
    assert report.evaluate("origin") == "null"  # no page of the dashboard can be read from it
    assert report.evaluate("fetch('/reports').then(() => 'read', () => 'refused')") == "refused"
    assert all("/reports" in line for line in said)  # what was refused just now
    report.close()


def hostile(page, address):
    page.goto(f"{address}/reports?report=small&where={{&order=x:up&measure=a/b&of=%00")
    expect(page.locator(".note", has_text="the filter '{' cannot be read")).to_be_visible()
    expect(page.locator("#report-pivot")).to_contain_text("no measure 'a/b' of heads")
    page.goto(f"{address}/reports?report=../../etc/passwd")
    expect(page.locator("#report-lost")).to_contain_text("no report '../../etc/passwd'")
