"""The heads page in Chromium, over the bundled model: points, rows and cards agree with the library."""

import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

import workbench
from tests.serving import served
from workbench.heads.measures import head_measures
from workbench.models import list_models
from workbench.sites import Head

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
POINTS = "#heads-graph .scatterlayer .point"


@pytest.fixture(scope="module")
def dashboard():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def measures():
    return head_measures(workbench.load("attn-2l"))


@pytest.fixture
def visit(open_page, dashboard):
    """`visit(head=…)`: the page opened at that address, its points and its card drawn."""

    def go(options=None, **query):
        page = open_page(**(options or {}))
        page.goto(f"{dashboard}/heads?" + urlencode(query))
        expect(page.locator(POINTS).first).to_be_attached(timeout=90_000)
        expect(page.locator("#card .card-head")).to_be_visible(timeout=90_000)
        return page

    return go


def query_of(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_for_query(page, **wanted):
    until = time.monotonic() + 20
    while not wanted.items() <= query_of(page).items():
        assert time.monotonic() < until, (page.url, wanted)
        page.wait_for_timeout(50)


def test_points_rows_and_the_card_are_those_of_the_library(visit, measures):
    page = visit()
    expect(page.locator(POINTS)).to_have_count(8 + 1)  # and the ring
    expect(page.locator("#card .card-head")).to_contain_text("Head 1.1")
    expect(page.locator("#card .badge").first).to_contain_text("induction")
    of = measures.of(Head(1, 1)).set_index("measure")["value"]
    row = page.locator("#card [role=row]", has_text="induction").first
    expect(row).to_contain_text(f"{of['induction']:.3g}")
    # A row of the table of all heads shows its card, which leads to the head's other pages.
    row = page.locator("#head-rows [role=row][row-index='4']").first
    row.scroll_into_view_if_needed()
    value = measures.of(Head(1, 0)).set_index("measure")["value"]["previous-token"]
    expect(row).to_contain_text(f"{value:.3g}")
    row.locator("[role=gridcell]").first.click()
    wait_for_query(page, head="1.0")
    expect(page.locator("#card .card-head")).to_contain_text("Head 1.0")
    circuits = page.get_by_role("link", name="Circuits of 1.0")
    expect(circuits).to_have_attribute("href", "/circuits?model=attn-2l&head=1.0")
    page.get_by_role("link", name="Attention of 1.0").click()
    expect(page.locator("#viewer")).to_contain_text("head 1.0", timeout=60_000)
    wait_for_query(page, head="1.0", locked="1")


def test_clicks_and_lists_choose_and_the_address_can_be_shared(visit, open_page):
    page = visit(y="distance", colour="layer")
    box = page.locator("#heads-graph .textpoint", has_text="0.1").bounding_box()
    # Labels stand above their points.
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] + 8)
    wait_for_query(page, head="0.1")
    expect(page.locator("#card .card-head")).to_contain_text("Head 0.1")
    page.get_by_role("combobox", name="Across").or_(page.get_by_label("Across")).first.click()
    page.get_by_role("option", name="entropy", exact=True).click()
    wait_for_query(page, x="entropy")
    expect(page.locator("#heads-graph .xtitle")).to_contain_text("entropy, nats")
    other = open_page()
    other.goto(page.url)
    expect(other.locator("#heads-graph .ytitle")).to_contain_text("distance", timeout=60_000)
    expect(other.locator("#heads-graph .xtitle")).to_contain_text("entropy, nats")
    expect(other.locator("#card .card-head")).to_contain_text("Head 0.1", timeout=60_000)
    wait_for_query(other, **query_of(page))


def test_an_address_that_cannot_be_meant_is_said_and_something_is_shown(visit):
    page = visit(x="beauty", head="<b>")
    for words in ("no x 'beauty'", "no head '<b>'"):
        expect(page.locator(".controls")).to_contain_text(words)


def test_a_head_that_the_model_lacks_is_named_in_the_card(open_page, dashboard):
    page = open_page()
    page.goto(f"{dashboard}/heads?head=7.9")
    expect(page.locator("#card [role=alert]")).to_contain_text("no head 7.9", timeout=60_000)
    expect(page.locator(POINTS).first).to_be_attached(timeout=60_000)


@pytest.mark.real
@pytest.mark.slow
def test_an_encoder_shows_what_it_has_and_says_what_it_lacks(visit):
    if "minilm" not in [info.name for info in list_models() if info.available]:
        pytest.skip("minilm is not installed")
    page = visit(model="minilm")
    expect(page.locator("#heads")).to_contain_text("minilm has no OV copying")
    expect(page.locator("#heads")).to_contain_text("Not measured")


def test_the_page_fits_a_narrow_window_and_the_dark(visit):
    page = visit({"viewport": {"width": 500, "height": 900}, "color_scheme": "dark"})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 500
    ink = page.evaluate("getComputedStyle(document.body).color")
    title = page.locator("#heads-graph .xtitle").first
    assert title.evaluate("element => getComputedStyle(element).fill") == ink
    ground = page.locator("#head-rows .ag-root-wrapper").evaluate(
        "element => getComputedStyle(element).backgroundColor"
    )
    assert ground == page.evaluate("getComputedStyle(document.body).backgroundColor")
