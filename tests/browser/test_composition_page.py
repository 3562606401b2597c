"""The composition page in Chromium, over the bundled model: cells, edges and rows lead to virtual heads."""

import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.serving import served
from workbench import load
from workbench.composition.scores import composition_scores
from workbench.models import list_models
from workbench.weights import effective_weights

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
SLOW = 60_000


@pytest.fixture(scope="module")
def dashboard():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def table():
    return composition_scores(effective_weights(load("attn-2l"))).table()


@pytest.fixture
def visit(open_page, dashboard):
    """`visit(value=…)`: the page opened at that address."""

    def go(**query):
        page = open_page()
        page.goto(f"{dashboard}/composition?" + urlencode({"model": "attn-2l"} | query))
        expect(page.locator("#composition-maps")).to_be_visible(timeout=SLOW)
        return page

    return go


def query_of(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_for_query(page, **wanted):
    parts = "".join(f"(?=.*[?&]{name}={re.escape(value)}(&|$))" for name, value in wanted.items())
    expect(page).to_have_url(re.compile(parts), timeout=20_000)


def test_the_page_opens_with_all_pairs_and_a_cell_or_a_row_chooses_one(visit, table):
    page = visit()
    for name in ("maps", "heads"):
        expect(page.locator(f"#composition-{name} .js-plotly-plot")).to_be_visible(timeout=SLOW)
    best = table.nlargest(1, "excess").iloc[0]
    row = page.locator("#composition-pairs .ag-row").first
    for column in ("through", "writer", "reader"):
        expect(row.locator(f"[col-id={column}]")).to_have_text(best[column], timeout=SLOW)
    expect(row.locator("[col-id=score]")).to_have_text(f"{best['score']:.3f}")
    expect(page.locator("#composition-pair")).to_contain_text("Choose a pair")
    cells = page.locator("#composition-maps-graph .nsewdrag").nth(1)  # the middle one is K
    box = cells.bounding_box(timeout=SLOW)
    page.mouse.move(box["x"] + box["width"] * 0.37, box["y"] + box["height"] * 0.37)
    cells.click(position={"x": box["width"] * 0.375, "y": box["height"] * 0.375})
    wait_for_query(page, head="1.1", earlier="0.1")
    row = page.locator("#composition-pairs .ag-row[row-index='1']")
    second = table.nlargest(2, "excess").iloc[1]
    row.locator("[col-id=score]").click()
    wait_for_query(page, head=second["reader"], earlier=second["writer"])
    chosen = page.locator("#composition-pair .pair-input.chosen")
    expect(chosen).to_contain_text(f"{second['through']}-composition", timeout=SLOW)


def test_a_click_on_an_edge_leads_to_its_virtual_head(visit, table):
    page = visit()
    best = table.query("through == 'K'").nlargest(1, "excess").iloc[0]
    graph = page.locator("#composition-graph")
    expect(graph).to_contain_text("through K", timeout=SLOW)
    graph.scroll_into_view_if_needed()
    # The strongest edge has the widest line; its dot is the only one of that pair through K.
    place = graph.locator(".js-plotly-plot").evaluate(
        """(plot, [writer, reader]) => {
          const trace = plot._fullData.findIndex((t) => t.name === "through K");
          const data = plot._fullData[trace];
          const index = data.customdata.findIndex((c) => c[1] === writer && c[2] === reader);
          const { xaxis, yaxis } = plot._fullLayout;
          const box = plot.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(data.x[index]),
                  box.y + yaxis._offset + yaxis.d2p(data.y[index])];
        }""",
        [best["writer"], best["reader"]],
    )
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    page.mouse.click(*place)
    wait_for_query(page, head=best["reader"], earlier=best["writer"])
    pair = page.locator("#composition-pair")
    expect(pair.locator(".pair-input.chosen")).to_contain_text(f"{best['score']:.3f}", timeout=SLOW)
    expect(page.locator("#composition-pattern .js-plotly-plot")).to_be_visible(timeout=SLOW)
    label = f"Circuits of {best['reader']}∘{best['writer']} (K)"
    pair.get_by_role("link", name=label).click()
    expect(page).to_have_url(re.compile("/circuits"), timeout=SLOW)
    wait_for_query(page, head=best["reader"], earlier=best["writer"], through="K", circuit="QK")
    expect(page.locator("#circuit-score")).to_have_text(f"{best['matching']:+.3f}", timeout=SLOW)


def test_the_threshold_says_how_many_edges_there_are(visit, table):
    page = visit(threshold="1.0")
    statement = page.locator("#composition-edges")
    n_above = int((table["score"] >= table["chance"]).sum())
    expect(statement).to_contain_text(f"{n_above} of 48 pairs", timeout=SLOW)
    slider = page.get_by_role("slider", name="Edges from × chance")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    n_above = int((table["score"] >= 1.2 * table["chance"]).sum())
    expect(statement).to_contain_text(f"{n_above} of 48 pairs", timeout=SLOW)
    wait_for_query(page, threshold="1.2")


def test_a_shared_address_opens_the_same_pair_and_view(visit, open_page, table):
    page = visit(head="1.0", earlier="0.3", through="Q", value="z")
    row = table.query("through == 'Q' and writer == '0.3' and reader == '1.0'").iloc[0]
    chosen = page.locator("#composition-pair .pair-input.chosen")
    expect(chosen).to_contain_text(f"{row['z']:+.1f}", timeout=SLOW)
    expect(page.locator("#composition-maps")).to_contain_text("std of random pairs", timeout=SLOW)
    other = open_page()
    other.goto(page.url)
    expect(other.locator("#composition-pair .pair-input.chosen")).to_contain_text(
        f"{row['z']:+.1f}", timeout=SLOW
    )
    assert query_of(other) == query_of(page)


@pytest.mark.real
def test_an_encoder_says_why_its_heads_have_no_composition(visit):
    if "minilm" not in [info.name for info in list_models() if info.available]:
        pytest.skip("minilm is not installed")
    page = visit(model="minilm")
    expect(page.locator("#composition-maps").get_by_role("alert")).to_be_visible(timeout=SLOW)
