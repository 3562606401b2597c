"""The report in a browser, from a file: drawn when seen, sorted when asked, and nothing in a name is run."""

import pytest

from probes.contract import findings_table
from probes.jobs import Job, Record
from probes.report import write_report
from probes.store import Store

HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=document.title='run'>"
PROBES = ("residual-norms", "copying-eigenvalues", "logit-lens", "head-behaviours", "head-ablation")
MEASURES = ("growth", "copying", "loss", "induction", "effect")


@pytest.fixture
def address(tmp_path):
    """Of a report with a figure for most probes, in which names are markup."""
    store = Store(tmp_path / "store")
    jobs = [
        Job(HOSTILE, "a", None, "h", probe, "m", 1, "data", "{}", "stdlib", "d") for probe in PROBES
    ]
    store.write_plan(jobs)
    for job, measure in zip(jobs, MEASURES, strict=True):
        rows = [
            {
                "measure": measure,
                "layer": at,
                "head": at,
                "site": "attn_out",
                "item": HOSTILE,
                "value": value,
                "null_mean": 0.0,
                "null_std": 1.0,
                "p": 0.001 * (1 + at),
                "unit": "nats",
            }
            for at, value in enumerate((2.5, 30.0, 1000.0, 0.25))
        ]
        store.save(Record.of(job, "ok"), findings_table(rows))
    return write_report(store, tmp_path / "out").as_uri()


def test_a_report_is_drawn_as_it_is_read_and_sorts_its_tables(open_page, address):
    page = open_page(color_scheme="dark")
    page.goto(address)
    assert page.title().startswith("Probe report: 1 model")
    plots, drawn = page.locator(".plot"), page.locator(".plot:has(.main-svg)")
    assert plots.count() >= 5 and drawn.count() < plots.count()
    last = plots.last
    last.scroll_into_view_if_needed()
    last.locator(".main-svg").first.wait_for()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "light"
    table = page.locator("#probe-1 table")
    head = table.locator("th", has_text="value")
    column = head.evaluate("(th) => th.cellIndex")
    cells = table.locator(f"td:nth-child({column + 1})")
    for wanted in (["1,000", "30", "2.5", "0.25"], ["0.25", "2.5", "30", "1,000"]):
        head.click()
        assert cells.all_inner_texts() == wanted
    assert page.title() != "run" and page.locator("main img").count() == 0
