"""The circuits page in Chromium, over the bundled model: real numbers, heads and tokens chosen by hand.

Console errors (a breach of the content security policy is one) and requests to other machines fail a test.
"""

import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pandas as pd
import pytest

from tests.serving import served
from workbench import load
from workbench.circuits.copying import eigen_cloud
from workbench.composition.virtual import virtual_head
from workbench.models import list_models
from workbench.sites import Head
from workbench.weights import effective_weights

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
SLOW = 60_000


@pytest.fixture(scope="module")
def dashboard():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def weights():
    return effective_weights(load("attn-2l"))


@pytest.fixture
def visit(open_page, dashboard):
    """`visit(head=…)`: the page opened at that address, its first panel answered."""

    def go(options=None, **query):
        page = open_page(**(options or {}))
        page.goto(f"{dashboard}/circuits?" + urlencode({"model": "attn-2l"} | query))
        expect(page.locator("#circuit-heads")).to_be_visible(timeout=SLOW)
        return page

    return go


def score_text(weights, head, kind="OV"):
    from workbench.circuits.full import ov_circuit, qk_circuit

    circuit = (ov_circuit if kind == "OV" else qk_circuit)(weights, head)
    return f"{eigen_cloud(circuit, weights, n_null=1).score:+.3f}"


def query_of(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_for_query(page, **wanted):
    expect(page).to_have_url(
        re.compile("".join(f"(?=.*[?&]{name}={re.escape(v)}(&|$))" for name, v in wanted.items())),
        timeout=20_000,
    )


def test_the_page_opens_with_the_notable_head_and_another_is_typed_or_clicked(visit, weights):
    page = visit()
    expect(page.locator("#circuit-score")).to_have_text(
        score_text(weights, Head(1, 1)), timeout=SLOW
    )
    # Every panel answers, with a figure or a table.
    for name in ("heads", "eigenvalues", "block", "offsets", "directions", "geometry"):
        expect(page.locator(f"#circuit-{name} .js-plotly-plot")).to_be_visible(timeout=SLOW)
    for name in ("entries", "token", "trigrams"):
        expect(page.locator(f"#circuit-{name} .ag-row")).not_to_have_count(0, timeout=SLOW)
        # Tables lay their rows out once they are seen.
        page.locator(f"#circuit-{name}").scroll_into_view_if_needed()
        expect(page.locator(f"#circuit-{name} .ag-row").first).to_be_visible(timeout=SLOW)
    page.locator("#circuit-heads").scroll_into_view_if_needed()
    page.get_by_label("Head", exact=True).fill("0.2")
    expect(page.locator("#circuit-score")).to_have_text(
        score_text(weights, Head(0, 2)), timeout=SLOW
    )
    wait_for_query(page, head="0.2")
    cells = page.locator("#circuit-heads-map .nsewdrag")
    box = cells.bounding_box()
    # Layer 1 is the lower row, head 3 the last of four columns.
    page.mouse.move(box["x"] + box["width"] * 0.87, box["y"] + box["height"] * 0.74)
    cells.click(position={"x": box["width"] * 0.875, "y": box["height"] * 0.75})
    wait_for_query(page, head="1.3")
    expect(page.locator("#circuit-score")).to_have_text(
        score_text(weights, Head(1, 3)), timeout=SLOW
    )
    page.go_back()
    wait_for_query(page, head="0.2")


def test_tokens_are_searched_by_what_they_contain(visit):
    page = visit()
    page.get_by_label("Token", exact=True).fill("self")
    panel = page.locator("#circuit-token")
    expect(panel.locator(".facts-row .token")).to_have_text("self", timeout=SLOW)
    wait_for_query(page, token="self")
    # 1.1 copies: what attending to a token raises most is the token.
    expect(panel.locator(".ag-row .token-cell").first).to_have_text("self")
    panel.locator(".token-chip", has_text="·self").click()
    expect(panel.locator(".facts-row .token")).to_have_text("·self", timeout=SLOW)
    page.get_by_label("Token", exact=True).fill("zebrafish")
    expect(panel.get_by_role("alert")).to_contain_text("no token", timeout=SLOW)
    # The same search gives skip-trigrams of one source.
    page.get_by_label("source", exact=True).fill("self")
    panel = page.locator("#circuit-trigrams")
    expect(panel.locator(".ag-row [col-id=source]").first).to_have_text("self", timeout=SLOW)
    expect(panel.locator(".ag-row [col-id=source]").nth(5)).to_have_text("self")
    counted = page.locator("#circuit-counted")
    expect(counted).to_contain_text("switch on", timeout=SLOW)
    page.get_by_role("radiogroup", name="Count them in text").get_by_text("on").click()
    expect(counted).to_contain_text("tokens of held-out text", timeout=SLOW)
    wait_for_query(page, source="self")


def test_a_shared_address_opens_a_virtual_head(visit, weights, open_page):
    asked = {"head": "1.1", "earlier": "0.1", "through": "K", "circuit": "QK"}
    page = visit(**asked)
    head = virtual_head(weights, Head(1, 1), Head(0, 1), through="K")
    # The previous-token head and the induction head: what is passed on is the token.
    text = score_text(weights, head, "QK")
    assert float(text) > 0.9
    expect(page.locator("#circuit-score")).to_have_text(text, timeout=SLOW)
    expect(page.get_by_label("Reads through an earlier head")).to_have_value("0.1")
    page.get_by_label("Token", exact=True).fill("def")
    wait_for_query(page, token="def")
    other = open_page()
    other.goto(page.url)
    expect(other.locator("#circuit-score")).to_have_text(text, timeout=SLOW)
    expect(other.locator("#circuit-token .facts-row .token")).to_have_text("def", timeout=SLOW)
    assert query_of(other) == query_of(page)


def test_a_table_downloads_and_a_panel_shows_its_python(visit):
    page = visit({"permissions": ["clipboard-read", "clipboard-write"]})
    panel = page.locator("#circuit-entries")
    with page.expect_download(timeout=SLOW) as download:
        panel.get_by_role("link", name=re.compile("Parquet")).click()
    table = pd.read_parquet(download.value.path())
    assert {"source", "out", "value", "unit"} <= set(table.columns)
    assert len(table) == 50
    panel.locator(".code-of-panel > summary").click()
    expect(panel.locator("pre")).to_contain_text("circuit.top(50, by='largest')")
    panel.get_by_role("button", name="Copy code").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()


def test_a_head_that_there_is_not_is_named_in_the_panels(visit):
    page = visit(head="7.7")
    expect(page.locator("#circuit-eigenvalues").get_by_role("alert")).to_contain_text(
        "no head 7.7", timeout=SLOW
    )


@pytest.mark.real
def test_an_encoder_says_why_it_has_no_token_circuits_and_shows_its_geometry(visit):
    if "minilm" not in [info.name for info in list_models() if info.available]:
        pytest.skip("minilm is not installed")
    page = visit(model="minilm")
    expect(page.locator("#circuit-eigenvalues").get_by_role("alert")).to_contain_text(
        "post-norm", timeout=SLOW
    )
    expect(page.locator("#circuit-geometry .js-plotly-plot")).to_be_visible(timeout=SLOW)
