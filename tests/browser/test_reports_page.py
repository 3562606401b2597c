"""The reports page in Chromium: a report is started, killed, resumed, browsed and opened."""

import os
import re
import signal
import time

import numpy as np
import pytest

from app.report_desk import ReportDesk
from app.report_folder import ReportFolder
from app.session import Session
from tests.addresses import query_of, wait_for_query
from tests.probes.stored import job, store_of
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
        expect(page.locator("#report-estimate")).to_contain_text(
            re.compile(r"1 model, 1\d jobs"), timeout=SLOW
        )
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


N_MODELS, N_EACH = 5, 20_000


@pytest.fixture
def large(tmp_path):
    """A finished report of a hundred thousand findings."""
    rng = np.random.default_rng(0)
    results = []
    for number in range(N_MODELS):
        values = rng.normal(size=N_EACH)
        rows = [
            {"measure": "size", "layer": i // 100, "head": i % 100, "value": value}
            for i, value in enumerate(values)
        ]
        results.append((job(f"model-{number}"), rows))
    store_of(tmp_path / "large", results)
    return tmp_path


def test_a_hundred_thousand_rows_are_scrolled_sorted_and_filtered(open_page, dashboard, large):
    page = open_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{dashboard(Session(reports=ReportDesk(large)))}/reports?report=large")
    grid = page.locator("#report-grid")
    expect(page.locator("#report-grid-said")).to_have_text("100,000 rows", timeout=SLOW)
    # Only what is seen is in the page, wherever one scrolls.
    body = grid.locator(".ag-body-viewport").first
    for share in (0.5, 1.0):
        body.evaluate("(e, share) => { e.scrollTop = share * e.scrollHeight }", share)
        last = N_MODELS * N_EACH - 1
        row = grid.locator(f"[row-index='{last if share == 1.0 else last // 2}'] [col-id='value']")
        expect(row).to_contain_text(re.compile(r"\d"), timeout=SLOW)
        assert grid.locator(".ag-center-cols-container [role=row]").count() < 200
    grid.locator(".ag-header-cell-text", has_text="value").click()
    wait_for_query(page, order="value:asc")
    body.evaluate("e => { e.scrollTop = 0 }")
    expect(grid.locator("[row-index='0'] [col-id='value']")).to_contain_text("−4", timeout=SLOW)


def browse(page):
    value = page.locator("#report-pivot .report-value")
    expect(value).to_have_count(4)
    page.get_by_label("Models", exact=True).click()
    page.get_by_role("option", name="attn-2l", exact=True).click()
    wait_for_query(page, whose="attn-2l")
    groups = page.locator("#report-pivot .ag-header-group-cell")
    expect(groups.filter(has_text="composition")).to_be_visible()
    expect(groups.filter(has_text="qk-geometry")).to_be_visible()
    page.get_by_label("Models", exact=True).click()
    page.get_by_role("option", name="all, by one measure").click()
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
    page.goto(f"{address}/reports?report=small&whose=<b>nobody</b>")
    expect(page.locator("#report-pivot")).to_contain_text("no heads of '<b>nobody</b>'")
    expect(page.locator("#report-pivot .report-value")).to_have_count(4)
    page.goto(f"{address}/reports?report=../../etc/passwd")
    expect(page.locator("#report-lost")).to_contain_text("no report '../../etc/passwd'")
