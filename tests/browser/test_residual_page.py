"""The residual page in Chromium, over the bundled model: the library's numbers, clicks that choose, links.

Console errors (a breach of the content security policy is one) and requests to other machines fail a test.
"""

import re
import time
from urllib.parse import urlencode

import pandas as pd
import pytest

import workbench
from tests.addresses import query_of, wait_for_query
from tests.serving import served
from workbench.models import list_models
from workbench.stream.attribution import logit_attribution
from workbench.stream.lens import logit_lens

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
PROMPT = "for name in names:\n    print(name)\nfor name in "
CELLS = "#lens-graph .heatmaplayer"
SAID = "#attribution .statement"


@pytest.fixture(scope="module")
def dashboard():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def model():
    return workbench.load("attn-2l")


@pytest.fixture
def visit(open_page, dashboard):
    """`visit(pos=…)`: the page opened at that address, its lens and attribution drawn."""

    def go(options=None, **query):
        page = open_page(**(options or {}))
        page.goto(f"{dashboard}/residual?" + urlencode({"prompt": PROMPT} | query))
        expect(page.locator(CELLS).first).to_be_attached(timeout=60_000)
        expect(page.locator(SAID)).to_be_visible(timeout=60_000)
        return page

    return go


def click_cell(page, layer, pos):
    """Click the cell of the lens that stands at a row (from the embedding) and a column."""
    cell = page.locator("#lens-graph .heatmap-label").nth(layer * n_columns(page) + pos)
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def n_columns(page):
    return page.locator("#lens-graph .heatmap-label").count() // 3


def test_the_page_opens_with_an_example_and_the_librarys_numbers(open_page, dashboard, model):
    page = open_page()
    page.goto(f"{dashboard}/residual")
    expect(page.locator(SAID)).to_be_visible(timeout=60_000)
    prompt = page.locator(".work-page textarea").first.input_value()
    found = logit_attribution(model, prompt)
    expect(page.locator(SAID)).to_contain_text(f"is {found.total:.4f}")
    expect(page.locator(SAID)).to_contain_text(f"parts sum to {found.values.sum():.4f}")
    expect(page.get_by_role("link", name="Residual")).to_have_attribute("aria-current", "page")
    wait_for_query(page, model="attn-2l", prompt=prompt)
    for panel in ("norms", "survival", "cosines"):
        expect(page.locator(f"#{panel} .heatmaplayer").first).to_be_attached(timeout=30_000)


def test_cells_and_bars_are_those_of_the_library_and_the_bars_add_up(visit, model):
    page = visit(by="head")
    lens = logit_lens(model, PROMPT, top=1)
    texts = page.locator("#lens-graph .heatmap-label").all_text_contents()
    cells = [cell[0].replace(" ", "·").replace("\n", "↵") for row in lens.top_texts for cell in row]
    assert [text for text in texts if len(text) < 9] == [cell for cell in cells if len(cell) < 9]
    found = logit_attribution(model, PROMPT, by="head")
    bars = page.locator("#attribution-graph .bartext").all_text_contents()
    numbers = [float(text.replace("−", "-")) for text in bars]
    assert len(numbers) == len(found.values) + 1  # the last is the sum
    assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=0.01)
    assert numbers[-1] == pytest.approx(found.total, abs=0.001)


def test_a_click_on_a_cell_attributes_its_token_and_the_address_can_be_shared(
    visit, open_page, model
):
    page = visit(distractor="mean", colour="kl")
    lens = logit_lens(model, PROMPT, top=1)
    click_cell(page, 1, 5)
    wait_for_query(page, pos="5")
    token = int(lens.top_tokens[1, 5, 0])
    assert query_of(page)["target"] in (lens.top_texts[1][5][0], f"#{token}")
    found = logit_attribution(model, PROMPT, token, distractor="mean", pos=5)
    expect(page.locator(SAID)).to_contain_text(f"at position 5, after {lens.str_tokens[5]}")
    expect(page.locator(SAID)).to_contain_text(f"is {found.total:.4f}")
    other = open_page()
    other.goto(page.url)
    expect(other.locator(SAID)).to_have_text(page.locator(SAID).inner_text(), timeout=30_000)
    expect(other.get_by_label("Position", exact=True)).to_have_value("5")
    expect(other.get_by_label("minus token")).to_have_value("mean")
    wait_for_query(other, **query_of(page))


def test_controls_change_what_is_shown_and_the_address_follows(visit):
    page = visit(pos="5", target="name", step="0")
    expect(page.locator("[data-shows=step]")).to_have_text("0")
    page.get_by_role("combobox", name="To the model's").or_(
        page.get_by_label("To the model's")
    ).first.click()
    page.get_by_role("option", name="source tokens").click()
    wait_for_query(page, by="source")
    expect(page.locator("#attribution-graph .ytick", has_text="←").first).to_be_attached()
    box = page.locator(".work-page textarea").first
    box.fill("x = 1")
    box.press("Enter")
    # Position and token belonged to the prompt before.
    wait_for_query(page, prompt="x = 1")
    assert not {"pos", "target"} & query_of(page).keys()
    expect(page.get_by_label("Predicted token")).to_have_value("")
    page.locator(".step-slider [role=slider]").first.focus()
    page.keyboard.press("ArrowRight")
    wait_for_query(page, step="250")
    found = logit_attribution(workbench.load("attn-2l", step=250), "x = 1")
    expect(page.locator(SAID)).to_contain_text(f"is {found.total:.4f}", timeout=30_000)


def test_an_address_that_cannot_be_meant_is_said_and_something_is_shown(visit):
    page = visit(model="<img src=x onerror=alert(1)>", step="7", colour="red", pos="-4")
    said = page.locator(".controls")
    for words in ("no model '<img", "no checkpoint of step 7", "no colour 'red'", "not between"):
        expect(said).to_contain_text(words)


def test_what_cannot_be_computed_is_explained_in_its_panel(visit):
    page = visit()
    said = page.locator("#attribution [role=alert]")
    page.get_by_label("Predicted token").fill("two words")
    expect(said).to_contain_text("choose one")
    page.get_by_label("Predicted token").fill("")
    page.get_by_label("Position", exact=True).fill("400")
    expect(said).to_contain_text("no position 400")
    page.get_by_label("Position", exact=True).fill("")
    expect(said).to_have_count(0)
    page.locator(".work-page textarea").first.fill("")
    for panel in ("lens", "attribution", "norms"):
        expect(page.locator(f"#{panel} [role=alert]")).to_contain_text("the prompt is empty")


def test_a_panel_gives_its_table_and_its_python(visit, model):
    page = visit({"permissions": ["clipboard-read", "clipboard-write"]}, by="head")
    panel = page.locator("#attribution")
    expected = logit_attribution(model, PROMPT, by="head").table()
    for kind, read in (("Parquet", pd.read_parquet), ("CSV", pd.read_csv)):
        with page.expect_download() as download:
            panel.get_by_role("link", name=re.compile(kind)).click()
        found = read(download.value.path())
        assert found["part"].astype(str).tolist() == expected["part"].tolist()
        assert found["value"].tolist() == pytest.approx(expected["value"].tolist(), abs=1e-5)
    panel.get_by_text("Code", exact=True).click()
    expect(panel.locator("pre")).to_contain_text("logit_attribution(model")
    panel.get_by_role("button", name="Copy code").click()
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == panel.locator("pre").inner_text()
    page.keyboard.press("Escape")
    expect(panel.locator("pre")).to_be_hidden()


def test_another_model_and_another_page_keep_the_prompt_and_back_returns(visit):
    page = visit()
    page.get_by_role("combobox", name="Model").or_(page.get_by_label("Model")).first.click()
    page.get_by_role("option", name="attn-1l").click()
    wait_for_query(page, model="attn-1l", prompt=PROMPT)
    ticks = page.locator("#lens-graph .ytick text")
    expect(ticks).to_have_count(2, timeout=60_000)
    page.go_back()
    expect(ticks).to_have_count(3, timeout=60_000)
    link = page.get_by_role("link", name="Attention", exact=True)
    link.hover()
    link.click()
    expect(page.locator("#prompt")).to_have_value(PROMPT, timeout=30_000)
    wait_for_query(page, model="attn-2l")


@pytest.mark.real
def test_a_model_without_logits_says_so_in_every_panel(open_page, dashboard):
    if "minilm" not in [info.name for info in list_models() if info.available]:
        pytest.skip("minilm is not installed")
    page = open_page()
    page.goto(f"{dashboard}/residual?model=minilm")
    expect(page.locator("#lens [role=alert]")).to_contain_text("no unembedding", timeout=120_000)
    expect(page.locator("#attribution [role=alert]")).to_contain_text("no unembedding")
    expect(page.locator("#norms [role=alert]")).to_contain_text("normalises after every sum")


def test_a_long_computation_shows_progress_and_is_cancelled(open_page, serve):
    from app.main import create_app
    from app.session import Session
    from workbench import models

    def slow(name, *, step=None, progress=None):
        for part in range(10_000):
            progress(f"converting part {part}")
            time.sleep(0.05)

    session = Session(load=slow)
    page = open_page()
    page.goto(serve(create_app(session)) + "/residual")
    panel = page.locator("#attribution")
    words = re.compile("Loading attn-2l|converting part")
    expect(panel.locator(".working")).to_contain_text(words, timeout=30_000)
    panel.get_by_role("button", name="Cancel").click()
    expect(panel.get_by_text("Cancelled.")).to_be_visible()
    expect(panel.locator(".working")).to_be_hidden()
    for other in ("lens", "norms", "cosines"):
        page.locator(f"#{other}").get_by_role("button", name="Cancel").click()
    session._load = models.load  # only now: a quick answer has nothing to cancel
    panel.get_by_role("button", name="Compute again").click()
    expect(page.locator(SAID)).to_be_visible(timeout=60_000)
    session.close(wait=60)


def test_who_leaves_the_page_stops_its_computations(open_page, serve, monkeypatch):
    from app.main import create_app
    from app.session import Session
    from workbench import models

    monkeypatch.setattr("app.jobs.GRACE_SECONDS", 0.2)

    def endless(name, *, step=None, progress=None):
        while True:
            progress("converting")
            time.sleep(0.05)

    session = Session(load=endless, list_models=models.list_models)
    page = open_page()
    page.goto(serve(create_app(session)) + "/residual")
    # Every panel has to know what it waits for before it can say that it waits no longer.
    n_panels = page.locator(".panel").count()
    expect(page.locator(".panel .working:visible [data-key]")).to_have_count(
        n_panels, timeout=30_000
    )
    page.goto("about:blank")
    until = time.monotonic() + 20
    while not session.analyses.is_idle:
        assert time.monotonic() < until
        page.wait_for_timeout(50)
    session.close(wait=60)


def test_the_page_is_readable_when_narrow_dark_and_from_the_keyboard(visit):
    page = visit({"viewport": {"width": 500, "height": 900}, "color_scheme": "dark"})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 500
    box = page.locator("#attribution-graph").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 501
    ink = page.evaluate("getComputedStyle(document.body).color")
    for text in (".xtick text", ".bartext-outside"):
        fill = "element => getComputedStyle(element).fill"
        assert page.locator(f"#attribution-graph {text}").first.evaluate(fill) == ink
    things = page.locator("button:visible, a:visible, textarea:visible, [role=slider]:visible")
    unnamed = """things => things.filter(one => one.tabIndex >= 0 &&
        !(one.ariaLabel || one.innerText || one.title || one.labels?.length)).map(one => one.outerHTML)"""
    assert things.evaluate_all(unnamed) == []
    page.locator(".panels").click(position={"x": 3, "y": 3})
    page.keyboard.press("/")
    expect(page.locator(".work-page textarea").first).to_be_focused()
