"""The paths page in Chromium, over the bundled model: its numbers, clicks that open, check and lead elsewhere.

Console errors (a breach of the content security policy is one) and requests to other machines fail a test.
"""

import re
from urllib.parse import urlencode, urlsplit

import pandas as pd
import pytest

import workbench
from tests.addresses import query_of, wait_for_query
from tests.serving import served
from workbench.paths.directions import logit_direction
from workbench.paths.flow import path_flow
from workbench.paths.frozen import freeze
from workbench.paths.scores import score_parts
from workbench.paths.search import feeds, top_paths
from workbench.paths.verify import verify
from workbench.sites import Head

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
PROMPT = "for name in names:\n    print(name)\nfor name in "
PANELS = ("meter", "orders", "tree", "top", "flow", "tokens")


@pytest.fixture(scope="module")
def dashboard():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def frozen():
    return freeze(workbench.load("attn-2l"), PROMPT)


@pytest.fixture
def visit(open_page, dashboard):
    """`visit(head=…)`: the page opened at that address, all panels drawn."""

    def go(options=None, **query):
        page = open_page(**(options or {}))
        page.goto(f"{dashboard}/paths?" + urlencode({"prompt": PROMPT} | query))
        drawn(page)
        return page

    return go


def drawn(page):
    for name in PANELS:
        expect(page.locator(f"#paths-{name}-body > *").first).to_be_attached(timeout=60_000)
    expect(page.locator(".working:visible")).to_have_count(0, timeout=30_000)


def test_a_walk_through_a_logit_shows_the_librarys_numbers(visit, open_page, frozen):
    page = visit()
    direction = logit_direction(frozen)
    found = top_paths(frozen, direction, k=20)
    meter = page.locator("#paths-meter")
    expect(meter.locator(".statement")).to_contain_text(f"{found.total:.4f}")
    expect(meter.locator(".facts-row")).to_contain_text(f"{found.listed:.4f}")
    expect(page.locator("#paths-score")).to_be_hidden()
    expect(page.get_by_role("link", name="Paths", exact=True)).to_have_attribute(
        "aria-current", "page"
    )

    # The tree from the keyboard: each level sums to the row above it, and focus stays.
    tree = page.locator("#paths-tree")
    toggle = tree.get_by_role("button", name="1.1", exact=True)
    toggle.focus()
    page.keyboard.press("Enter")
    wait_for_query(page, through="1.1")
    part = next(part for part in frozen.components if part.label == "1.1")
    level = feeds(frozen, direction, [part])
    below = tree.locator("ul ul").first
    expect(below.locator(".path-row.sum")).to_contain_text(f"{level.subtotal:+.4f}")
    expect(tree.locator("[data-chain='1.1']")).to_be_focused()
    below.get_by_role("button", name="0.1", exact=True).click()
    wait_for_query(page, through="1.1;0.1,1.1")
    expect(tree.locator("ul ul ul .path-row.sum")).to_have_count(1)

    # A row of the table is checked, frozen and in the model itself.
    row = page.locator("#paths-top-table .ag-row").nth(2)
    row.click()
    wait_for_query(page, check=found.paths[2].label)
    made = verify(frozen, direction, found.paths[2])
    cards = page.locator("#paths-check .path-card .value")
    expect(cards).to_have_text([f"{made.frozen:+.4f}", f"{made.unfrozen:+.4f}"])
    tree.locator("[data-check='1.1']").click()
    wait_for_query(page, check="1.1")
    made = verify(frozen, direction, part)
    expect(cards).to_have_text([f"{made.frozen:+.4f}", f"{made.unfrozen:+.4f}"])

    # The address is the page: another visitor sees the same.
    other = open_page()
    other.goto(page.url)
    drawn(other)
    expect(other.locator("#paths-tree .path-tree")).to_have_text(
        tree.locator(".path-tree").inner_text(), use_inner_text=True
    )
    expect(other.locator("#paths-check .path-card .value")).to_have_text(cards.all_inner_texts())
    wait_for_query(other, **query_of(page))

    # Closing a component closes what was opened behind it.
    tree.locator("[data-chain='1.1']").click()
    expect(tree.locator("ul ul")).to_have_count(0)
    assert "through" not in query_of(page)

    with page.expect_download() as download:
        page.locator("#paths-top").get_by_role("link", name=re.compile("CSV")).click()
    table = pd.read_csv(download.value.path())
    assert table["path"].tolist() == [path.label for path in found.paths]
    assert table["value"].tolist() == pytest.approx(found.values.tolist(), abs=1e-5)


def test_an_edge_of_the_flow_leads_to_its_head_and_back_to_its_score(visit, frozen):
    page = visit()
    flow = path_flow(frozen, logit_direction(frozen))
    step, head, query, _ = flow.places[0].tolist()
    label = f"{flow.steps[step].split()[1]}.{head}"
    graph = page.locator("#paths-flow-graph")
    graph.scroll_into_view_if_needed()
    at = graph.locator(".js-plotly-plot").evaluate(
        """gd => {
            const trace = gd._fullData.find((one) => one.name === "edges");
            const sizes = trace.customdata.map((row) => (row[0] === "head" ? Math.abs(row[4]) : 0));
            const index = sizes.indexOf(Math.max(...sizes));
            const { xaxis, yaxis, _size } = gd._fullLayout, box = gd.getBoundingClientRect();
            return [box.x + _size.l + xaxis.d2p(trace.x[index]), box.y + _size.t + yaxis.d2p(trace.y[index])];
        }"""
    )
    page.mouse.move(at[0] - 3, at[1])
    page.mouse.move(*at)
    expect(graph.locator(".hoverlayer")).to_contain_text(f"head {label}")
    expect(graph.locator(".hoverlayer")).to_contain_text(f"{flow.values[0]:+.4f}")
    page.mouse.click(*at)
    expect(page.locator("#why")).to_be_visible(timeout=30_000)
    assert urlsplit(page.url).path == "/"
    wait_for_query(page, head=label, locked="1", pos=str(query), prompt=PROMPT)
    page.locator("#why").click()
    expect(page.locator("#paths-score .facts-row")).to_be_visible(timeout=30_000)
    wait_for_query(page, what="score", head=label, query=str(query), prompt=PROMPT)
    found = score_parts(frozen, Head.parse(label), query, int(flow.places[0][3]), versus="mean")
    expect(page.locator("#paths-score .statement")).to_contain_text(
        f"{found.total:.4f} before softmax"
    )
    expect(page.locator("#paths-score .heatmaplayer").first).to_be_attached()
    # The other panels take the same score apart; a logit's fields are out of sight.
    expect(page.locator("#paths-meter .statement")).to_contain_text(f"is {found.total:.4f}")
    expect(page.get_by_label("Predicted token")).to_be_hidden()
    page.get_by_label("Head", exact=True).fill("7.7")
    expect(page.locator("#paths-score [role=alert]")).to_contain_text("no head 7.7")
    page.go_back()
    expect(page.get_by_label("Head", exact=True)).to_have_value(label, timeout=30_000)


def test_an_address_that_cannot_be_meant_is_said_and_something_is_shown(visit):
    junk = {"model": "<img src=x onerror=alert(1)>", "threshold": "NaN", "pos": "-4", "k": "10**9"}
    page = visit(**junk, through="9.9;<b>", what="everything", than="me", check="embed → 9.9")
    said = page.locator(".controls")
    for words in (
        "no model '<img",
        "threshold 'NaN'",
        "not between",
        "no what 'everything'",
        "than 'me'",
    ):
        expect(said).to_contain_text(words)
    expect(page.locator("#paths-tree .note").first).to_contain_text("no component '9.9'")
    expect(page.locator("#paths-check [role=alert]")).to_contain_text("no component '9.9'")
    page.get_by_label("Position", exact=True).fill("400")
    for name in PANELS:
        expect(page.locator(f"#paths-{name} [role=alert]")).to_contain_text("no position 400")


def test_the_page_is_readable_when_narrow_and_dark_and_arrives_from_the_residual_page(
    open_page, dashboard
):
    page = open_page(viewport={"width": 500, "height": 900}, color_scheme="dark")
    page.goto(
        f"{dashboard}/residual?" + urlencode({"prompt": PROMPT, "pos": 5, "distractor": "mean"})
    )
    page.get_by_role("link", name="Take this logit apart into paths").click()
    drawn(page)
    wait_for_query(page, pos="5", versus="mean", prompt=PROMPT)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 500
    ink = page.evaluate("getComputedStyle(document.body).color")
    for text in ("#paths-meter .ytick text", "#paths-flow-graph .xtick text"):
        fill = "element => getComputedStyle(element).fill"
        assert page.locator(text).first.evaluate(fill) == ink
    for name in PANELS:
        box = page.locator(f"#paths-{name}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 501
    things = page.locator("button:visible, a:visible, textarea:visible, [role=slider]:visible")
    unnamed = """things => things.filter(one => one.tabIndex >= 0 &&
        !(one.ariaLabel || one.innerText || one.title || one.labels?.length)).map(one => one.outerHTML)"""
    assert things.evaluate_all(unnamed) == []
