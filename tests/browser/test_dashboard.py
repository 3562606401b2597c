"""The dashboard in Chromium, over the bundled model: what a visitor does, sees and is told.

Console errors (a breach of the content security policy is one) and requests to other machines fail a test.
"""

import re
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.serving import served

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

PROMPT = "for name in names:\n    print(name)\nfor name in "
HEADS = "#viewer button.wba-head"


@pytest.fixture(scope="module")
def dashboard():
    """The address of one dashboard on a real waitress server, as `workbench serve` starts it."""
    with served() as address:
        yield f"{address}/"


@pytest.fixture
def visit(open_page, dashboard):
    """`visit(model=…, view=…)`: a page opened at that address, its heads drawn."""

    def go(options=None, **query):
        page = open_page(**(options or {}))
        page.goto(dashboard + ("?" + urlencode(query) if query else ""))
        expect(page.locator(HEADS).first).to_be_visible(timeout=60_000)
        return page

    return go


def write(page, text, box="#prompt"):
    page.locator(box).fill(text)
    page.get_by_role("button", name="Run").click()


def query_of(page):
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def wait_for_query(page, **wanted):
    deadline = time.monotonic() + 20
    while not wanted.items() <= query_of(page).items():
        assert time.monotonic() < deadline, (page.url, wanted)
        page.wait_for_timeout(50)


def test_the_first_screen_shows_every_head_of_the_default_model(visit):
    page = visit()
    expect(page.locator(HEADS)).to_have_count(8)
    expect(page.locator("#facts")).to_contain_text("attn-2l")
    expect(page.locator("#token-count")).to_contain_text("/ 256 tokens")
    expect(page.locator("#prompt")).not_to_be_empty()


def test_badges_arrive_and_the_induction_head_is_named(visit):
    page = visit()
    expect(page.locator("#viewer .wba-badge-label", has_text="induction").first).to_be_visible(
        timeout=60_000
    )


def test_a_prompt_runs_on_enter_and_on_run(visit):
    page = visit()
    page.locator("#prompt").fill("x = 1")
    page.locator("#prompt").press("Enter")
    expect(page.locator("#viewer")).not_to_contain_text("def")
    wait_for_query(page, prompt="x = 1")
    write(page, PROMPT)
    expect(page.locator("#viewer")).to_contain_text("print")
    wait_for_query(page, prompt=PROMPT)


def test_an_example_fills_the_prompt(visit):
    page = visit()
    example = page.locator("button.example").nth(1)
    text = example.get_attribute("title")
    example.click()
    expect(page.locator("#prompt")).to_have_value(text)
    wait_for_query(page, prompt=text)


def test_a_hovered_head_is_shown_and_a_clicked_one_is_locked(visit):
    page = visit()
    first, second = page.locator(HEADS).nth(6), page.locator(HEADS).nth(3)
    first.hover()
    expect(page.locator("#viewer")).to_contain_text("head 1.2")
    first.click()
    wait_for_query(page, head="1.2", locked="1")
    second.hover()
    expect(page.locator("#viewer")).to_contain_text("locked")
    wait_for_query(page, head="1.2")


def test_escape_unlocks_from_anywhere_and_slash_goes_to_the_prompt(visit):
    page = visit(head="1.1", locked="1", pos="3")
    expect(page.locator("#viewer")).to_contain_text("locked")
    page.locator("h1").click()
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).not_to_contain_text("locked ·")
    page.keyboard.press("/")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#prompt")).not_to_be_focused()


def test_arrows_move_through_the_heads(visit):
    page = visit(head="0.0")
    page.locator(HEADS).first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    wait_for_query(page, head="1.1")


def test_a_difference_of_two_prompts_is_signed(visit):
    page = visit(view="difference", prompt="print(name)", other="print(value)")
    expect(page.locator("#other-prompt")).to_have_value("print(value)")
    expect(page.locator("#facts")).to_contain_text("first prompt − second prompt")
    write(page, "print(self)", "#other-prompt")
    wait_for_query(page, other="print(self)")
    expect(page.locator("#viewer")).to_contain_text("self→name")


def test_the_view_selector_changes_what_is_shown(visit):
    page = visit()
    for label, kind, unit in (
        ("Scores before softmax", "scores", "signed"),
        ("Value-weighted pattern", "value-weighted", "value vector"),
        ("Mean over prompts", "mean", "one a line"),
    ):
        page.get_by_role("combobox", name="View").or_(page.get_by_label("View")).first.click()
        page.get_by_role("option", name=label).click()
        wait_for_query(page, view=kind)
        expect(page.locator("#kind-hint")).to_contain_text(unit)
        expect(page.locator("#facts")).to_contain_text(label)


def test_the_slider_walks_through_training(visit):
    page = visit(step="0")
    expect(page.locator("#step-label")).to_have_text("0")
    expect(page.locator("#facts")).to_contain_text("step 0")
    page.locator("#step [role=slider], #step[role=slider]").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#step-label")).not_to_have_text("0")
    step = page.locator("#step-label").inner_text().replace(",", "")
    wait_for_query(page, step=step)
    expect(page.locator("#facts")).to_contain_text(f"step {int(step):,}")


def test_two_checkpoints_are_compared(visit):
    page = visit(view="training", before="0")
    expect(page.locator("#facts")).to_contain_text("finished − step 0")
    expect(page.locator("#before-block")).to_be_visible()


def test_the_curves_of_training_are_drawn(visit):
    page = visit()
    expect(page.locator("#training svg polyline")).to_have_count(2, timeout=90_000)
    expect(page.locator("#training")).to_contain_text("induction")


def test_a_shared_address_opens_the_same_view(visit, open_page):
    page = visit(model="attn-2l", prompt=PROMPT, view="scores", step="0")
    page.locator(HEADS).nth(5).click()
    wait_for_query(page, head="1.1", locked="1", step="0", view="scores")
    other = open_page()
    other.goto(page.url)
    expect(other.locator("#prompt")).to_have_value(PROMPT)
    expect(other.locator("#facts")).to_contain_text("step 0")
    expect(other.locator("#viewer")).to_contain_text("head 1.1", timeout=20_000)
    expect(other.locator("#viewer")).to_contain_text("locked")
    assert query_of(other) == query_of(page)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"model": "nothing"}, "no model 'nothing'"),
        ({"model": "<img src=x onerror=alert(1)>"}, "no model '<img"),
        ({"view": "nonsense"}, "no view 'nonsense'"),
        ({"head": "x"}, "no head 'x'"),
        ({"step": "7"}, "no checkpoint of step 7"),
        ({"pos": "-1"}, "not a token position"),
    ],
)
def test_an_address_that_cannot_be_meant_is_said_and_something_is_shown(visit, query, words):
    page = visit(**query)
    expect(page.locator("#alert")).to_contain_text(words)
    expect(page.locator(HEADS)).to_have_count(8)
    page.wait_for_timeout(300)
    expect(page.locator("#alert")).to_contain_text(words)


@pytest.mark.parametrize(("text", "words"), [("", "empty"), ("a " * 400, "at most 256")])
def test_a_prompt_that_cannot_be_run_is_explained_beside_it(visit, text, words):
    page = visit(prompt="x = 1")
    write(page, text)
    alert = page.locator("#alert [role=alert]")
    expect(alert).to_contain_text(words)
    # The last good view stays, and the next good prompt clears the message.
    expect(page.locator(HEADS)).to_have_count(8)
    write(page, "y = 2")
    expect(alert).to_have_count(0)


def test_a_null_character_in_the_address_is_explained(open_page, dashboard):
    page = open_page()
    page.goto(dashboard + "?prompt=a%00b")
    expect(page.locator("#alert")).to_contain_text("null character")


def test_dark_follows_the_system_and_a_choice_outlasts_a_reload(visit):
    page = visit({"color_scheme": "dark"})
    root = page.locator("html")
    expect(root).to_have_attribute("data-mantine-color-scheme", "dark")
    expect(page.locator("#viewer .wba")).to_have_attribute("data-wba-theme", "dark")
    page.get_by_role("button", name="Change between light and dark").click()
    expect(root).to_have_attribute("data-mantine-color-scheme", "light")
    expect(page.locator("#viewer .wba")).to_have_attribute("data-wba-theme", "light")
    page.reload()
    expect(page.locator(HEADS).first).to_be_visible()
    expect(root).to_have_attribute("data-mantine-color-scheme", "light")


def test_the_python_of_the_view_can_be_copied(visit):
    page = visit({"permissions": ["clipboard-read", "clipboard-write"]}, prompt="x = 1")
    page.get_by_role("button", name="Show the Python of this view").click()
    expect(page.locator("#code")).to_contain_text("workbench.load('attn-2l')")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code").inner_text()


def test_the_view_downloads_as_one_page(visit):
    page = visit()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("Download")).click()
    assert download.value.suggested_filename == "attention-attn-2l-pattern.html"
    assert "WorkbenchAttention" in download.value.path().read_text()


def test_a_view_that_left_the_servers_memory_is_made_again(visit, dashboard):
    page = visit(prompt="x = 1")
    # Pretend that the key is gone once; the page asks for its view again and shows it.
    gone = []

    def answer(route):
        if gone:
            return route.continue_()
        gone.append(route.request.url)
        return route.fulfill(status=404, content_type="application/json", body='{"error": "gone"}')

    page.route("**/api/attention/*/meta", answer)
    write(page, "z = 3")
    expect(page.locator(HEADS)).to_have_count(8)
    expect(page.locator("#viewer")).to_contain_text("z")
    assert gone
    # Chromium reports the 404 itself; nothing else may be in the console.
    assert all("404" in error for error in page.errors)
    page.errors.clear()


def test_an_unknown_page_says_so(open_page, dashboard):
    page = open_page()
    page.goto(dashboard + "nowhere")
    expect(page.get_by_role("alert")).to_contain_text("no page /nowhere")
    assert all("404" in error for error in page.errors)  # Chromium reports the status itself
    page.errors.clear()


def test_everything_can_be_reached_from_the_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.url.endswith("#viewer") or "#viewer" in page.url
    unnamed = page.locator("button:visible, a:visible, textarea:visible, [role=slider]:visible")
    for index in range(unnamed.count()):
        named = unnamed.nth(index)
        name = (
            named.get_attribute("aria-label") or named.inner_text() or named.get_attribute("title")
        )
        assert name or named.get_attribute("id"), named.evaluate("e => e.outerHTML")


@pytest.mark.real
@pytest.mark.slow
def test_a_slow_model_says_what_it_does_while_the_page_stays_alive(visit):
    page = visit()
    page.get_by_role("combobox", name="Model").or_(page.get_by_label("Model")).first.click()
    page.get_by_role("option", name="minilm").click()
    expect(page.locator("#facts")).to_contain_text("minilm", timeout=120_000)
    expect(page.locator(HEADS)).to_have_count(72)


def test_a_long_computation_says_what_it_does_and_the_page_stays_alive(open_page, serve):
    from app.main import create_app
    from app.session import Session
    from workbench import models

    def slow(name, *, step=None, progress=None):
        progress("converting the weights")
        time.sleep(4)
        return models.load(name, step=step)

    session = Session(load=slow)
    page = open_page()
    page.goto(serve(create_app(session)))
    expect(page.locator("#progress")).to_contain_text("converting the weights")
    page.locator("#prompt").fill("x = 1")
    expect(page.locator(HEADS).first).to_be_visible(timeout=60_000)
    expect(page.locator("#progress")).to_be_empty()
    wait_for_query(page, prompt="x = 1")
    session.close(wait=60)
