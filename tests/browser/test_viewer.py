"""The attention viewer in Chromium, served under the policy that the dashboard runs with."""

import gzip
import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs

import numpy as np
import pytest

from workbench.attention import AttentionMaps
from workbench.figures.attention_view import (
    VIEWER_CSS,
    VIEWER_JS,
    attention_page,
    encode_layer,
    exact_cross,
    view_meta,
)
from workbench.figures.attention_view.payload import decode_layer
from workbench.figures.theme import DIVERGING, SEQUENTIAL

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)
PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<link rel="stylesheet" href="/viewer.css"><div id="view"></div>
<script src="/viewer.js"></script><script src="/boot.js"></script></html>"""
# `broken` names what fails until the test repairs it; `asked` records what was fetched.
BOOT = b"""
const query = new URLSearchParams(location.search);
window.broken = new Set((query.get("broken") || "").split(","));
window.asked = [];
window.states = [];
async function get(name, path) {
  window.asked.push(name);
  if (window.broken.has(name)) throw new Error(`${name} is <b>broken</b>`);
  return fetch(path);
}
window.source = {
  meta: async () => (await get("meta", "/meta")).json(),
  layer: async (l) => (await get(`layer${l}`, `/layer?layer=${l}`)).arrayBuffer(),
  cross: async (l, h, p) => (await get("cross", `/cross?layer=${l}&head=${h}&pos=${p}`)).json(),
};
window.view = WorkbenchAttention.mount(document.getElementById("view"), window.source, {
  theme: query.get("theme") || "light",
  onState: (state) => window.states.push(state),
});
"""
TEXT = ("<s>", "The", " cat", " sat", "\n", "The", " cat", " sat")
BADGES = {"1.2": [{"label": "induction", "value": 0.93, "chance": 0.05}]}
Open = Callable[..., object]


def site(maps: AttentionMaps) -> Callable:
    """A WSGI app of the viewer and one set of maps; layers leave gzipped, as from the dashboard."""

    drawn = {f"{layer}.{head}" for layer, h in enumerate(maps.layers) for head in range(len(h))}
    badges = {label: held for label, held in BADGES.items() if label in drawn}

    def body(path: str, asked: dict[str, int]) -> tuple[str, bytes]:
        match path:
            case "/":
                return "text/html", PAGE
            case "/boot.js":
                return "text/javascript", BOOT
            case "/viewer.js":
                return "text/javascript", VIEWER_JS.encode()
            case "/viewer.css":
                return "text/css", VIEWER_CSS.encode()
            case "/meta":
                return "application/json", json.dumps(view_meta(maps, badges)).encode()
            case "/cross":
                return "application/json", json.dumps(exact_cross(maps, **asked)).encode()
        return "application/octet-stream", encode_layer(maps, **asked)

    def app(environ: dict, start: Callable) -> list[bytes]:
        query = parse_qs(environ["QUERY_STRING"])
        asked = {name: int(v[0]) for name, v in query.items() if v[0].isdigit()}
        kind, content = body(environ["PATH_INFO"], asked)
        headers = [("Content-Type", kind), ("Content-Security-Policy", POLICY)]
        if environ["PATH_INFO"] == "/layer":
            headers.append(("Content-Encoding", "gzip"))
        start("200 OK", headers)
        return [content]

    return app


def maps_of(
    heads: tuple[int, ...] = (4, 4),
    tokens: tuple[str, ...] = TEXT,
    *,
    kind: str = "pattern",
    seed=0,
) -> AttentionMaps:
    n, random = len(tokens), np.random.default_rng(seed)
    layers = []
    for n_heads in heads:
        weights = np.exp(2 * random.normal(size=(n_heads, n, n))) * np.tri(n)
        layer = weights / weights.sum(-1, keepdims=True)
        layers.append((layer if kind == "pattern" else layer - layer[::-1]).astype(np.float32))
    return AttentionMaps(tuple(layers), tokens, tokens, kind, "toy: The cat sat", True)


@pytest.fixture
def open_view(page, serve) -> Open:
    def start(maps: AttentionMaps | None = None, query: str = "", *, ready: bool = True):
        page.goto(serve(site(maps or maps_of())) + "/" + query)
        if ready:
            page.locator('.wba-row[data-layer="0"][data-status="ready"]').wait_for()
        return page

    return start


def thumb(page, layer: int, head: int):
    return page.get_by_role("button", name=re.compile(rf"^layer {layer} head {head}(,|$)"))


def title(page):
    return page.locator(".wba-title strong")


def state(page) -> dict:
    return page.evaluate("view.getState()")


def expect(locator):
    from playwright.sync_api import expect as expect_soon

    return expect_soon(locator)


def point_at(page, query: int, key: int) -> None:
    """Move the mouse over a cell; the view publishes where its cells lie as data attributes."""
    over = page.locator(".wba-over")
    left, top, cell = (
        float(over.get_attribute(f"data-{name}")) for name in ("left", "top", "cell")
    )
    over.hover(position={"x": left + (key + 0.5) * cell, "y": top + (query + 0.5) * cell})


def colour_at(page, query: int, key: int) -> str:
    over = page.locator(".wba-over")
    left, top, cell = (
        float(over.get_attribute(f"data-{name}")) for name in ("left", "top", "cell")
    )
    pixel = page.evaluate(
        "([x, y]) => [...document.querySelector('.wba-base').getContext('2d').getImageData(x, y, 1, 1).data]",
        [round(left + (key + 0.3) * cell), round(top + (query + 0.3) * cell)],
    )
    return "#" + "".join(f"{channel:02x}" for channel in pixel[:3])


def test_all_heads_are_buttons_that_say_what_they_do(open_view):
    page = open_view()
    expect(page.locator("button.wba-head")).to_have_count(8)
    expect(thumb(page, 1, 2)).to_have_attribute("aria-label", "layer 1 head 2, induction 0.93")
    expect(thumb(page, 1, 2)).to_contain_text("induction")
    expect(page.locator(".wba-heading")).to_have_text("toy: The cat sat")


def test_hovering_previews_and_clicking_locks(open_view):
    page = open_view()
    expect(title(page)).to_have_text("head 0.0")
    thumb(page, 1, 2).hover()
    expect(page.locator(".wba-title")).to_contain_text("head 1.2· induction 0.93 (chance 0.05)")
    assert state(page) == {"layer": 1, "head": 2, "locked": False, "pos": None}
    thumb(page, 1, 2).click()
    thumb(page, 0, 1).hover()
    expect(title(page)).to_have_text("head 1.2")
    expect(thumb(page, 1, 2)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(thumb(page, 1, 2)).to_have_attribute("aria-pressed", "false")
    thumb(page, 0, 3).hover()
    expect(title(page)).to_have_text("head 0.3")


def test_arrows_move_through_the_heads_and_enter_locks(open_view):
    page = open_view()
    thumb(page, 0, 0).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    expect(title(page)).to_have_text("head 1.1")
    expect(thumb(page, 1, 1)).to_be_focused()
    assert page.locator("button.wba-head[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    assert state(page)["locked"]
    page.keyboard.press("End")
    expect(title(page)).to_have_text("head 1.3")
    page.keyboard.press("Escape")
    assert not state(page)["locked"]
    page.keyboard.press("ArrowDown")
    expect(title(page)).to_have_text("head 1.3")


def test_the_reader_is_told_of_states_once_and_the_caller_sets_them_silently(open_view):
    page = open_view()
    thumb(page, 1, 2).click()
    page.evaluate("view.setState({layer: 0, head: 3, pos: 5})")
    expect(title(page)).to_have_text("head 0.3")
    page.wait_for_timeout(250)
    states = page.evaluate("window.states")
    assert states[-1] == {"layer": 1, "head": 2, "locked": True, "pos": None}
    assert state(page) == {"layer": 0, "head": 3, "locked": True, "pos": 5}
    page.evaluate("view.setState({layer: 99, head: -4, pos: 1e9})")
    assert state(page) == {"layer": 0, "head": 0, "locked": True, "pos": None}


def test_a_token_shows_where_it_looks_and_who_looks_at_it_exactly(open_view):
    maps = maps_of()
    page = open_view(maps)
    chips = page.locator("button.wba-chip")
    expect(chips).to_have_text(["<s>", "The", "·cat", "·sat", "↵", "The", "·cat", "·sat"])
    chips.nth(5).hover()
    legend = page.locator(".wba-legend")
    expect(legend).to_have_attribute("data-exact", "true")
    strongest = int(maps.layers[0][0, 5].argmax())
    expect(page.locator(".wba-legend-row")).to_contain_text(
        f"{maps.layers[0][0, 5, strongest]:.3f}"
    )
    assert "var(--wba-row)" in chips.nth(strongest).get_attribute("style")
    assert "var(--wba-column)" in chips.nth(7).get_attribute("style")
    assert page.evaluate("asked.filter((name) => name === 'cross').length") == 1


def test_the_picture_serves_until_the_exact_line_arrives(open_view):
    page = open_view(query="?broken=cross")
    page.locator("button.wba-chip").nth(5).hover()
    expect(page.locator(".wba-exact")).to_have_text("≈ read from the picture (254 levels)")
    page.evaluate("broken.clear()")
    page.locator("button.wba-chip").nth(6).hover()
    expect(page.locator(".wba-exact")).to_have_text("exact")


def test_a_click_pins_a_token_and_arrows_walk_the_text(open_view):
    page = open_view()
    chips = page.locator("button.wba-chip")
    chips.nth(2).click()
    assert state(page)["pos"] == 2
    page.mouse.move(5, 5)
    expect(chips.nth(2)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".wba-legend-row b")).to_have_text("“·sat” looks at")
    page.keyboard.press("Escape")
    assert state(page)["pos"] is None


def test_a_cell_tells_its_tokens_and_its_exact_value(open_view):
    maps = maps_of()
    page = open_view(maps)
    point_at(page, 6, 3)
    tip = page.locator(".wba-tip")
    expect(tip).to_have_attribute("data-exact", "true")
    expect(tip).to_contain_text("query·cat 6")
    expect(tip).to_contain_text("key·sat 3")
    value = maps.layers[0][0, 6, 3]
    expect(tip).to_contain_text(f"{value:.{3 if value >= 0.1 else 4}f} attention")
    point_at(page, 2, 6)
    expect(tip).to_contain_text("a query sees no later key")


def test_zero_is_paper_one_is_the_darkest_and_the_future_is_neither(open_view):
    layer = np.zeros((1, 8, 8), np.float32)
    layer[0, :, 0] = 1
    page = open_view(AttentionMaps((layer,), TEXT, TEXT, "pattern", "sink", True), ready=False)
    page.locator('.wba-row[data-status="ready"]').wait_for()
    assert colour_at(page, 5, 0) == SEQUENTIAL[-1]
    assert colour_at(page, 5, 3) == SEQUENTIAL[0]
    assert colour_at(page, 3, 5) not in (SEQUENTIAL[0], SEQUENTIAL[-1])


def test_signed_maps_are_white_at_zero_and_symmetric(open_view):
    layer = np.zeros((1, 8, 8), np.float32)
    layer[0, 5, 0], layer[0, 5, 1] = 0.5, -0.5
    maps = AttentionMaps((layer,), TEXT, TEXT, "difference", "after − before", True)
    page = open_view(maps)
    assert colour_at(page, 5, 0) == DIVERGING[-1]
    assert colour_at(page, 5, 1) == DIVERGING[0]
    assert colour_at(page, 5, 2) == "#ffffff"
    page.locator("button.wba-chip").nth(5).hover()
    expect(page.locator(".wba-legend-row")).to_contain_text("−0.500")


def test_dark_paper_makes_zero_dark(open_view):
    layer = np.zeros((1, 8, 8), np.float32)
    layer[0, :, 0] = 1
    maps = AttentionMaps((layer,), TEXT, TEXT, "pattern", "sink", True)
    page = open_view(maps, "?theme=dark")
    paper = page.evaluate("getComputedStyle(document.querySelector('.wba')).backgroundColor")
    assert paper == "rgb(23, 26, 33)"
    assert colour_at(page, 5, 3) == "#171a21"
    page.evaluate("view.update(null, {theme: 'light'})")
    assert colour_at(page, 5, 3) == "#ffffff"


def test_a_layer_that_fails_says_so_in_place_and_can_be_retried(open_view):
    page = open_view(query="?broken=layer1")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Layer 1 did not load: layer1 is <b>broken</b>")
    thumb(page, 0, 1).hover()
    expect(title(page)).to_have_text("head 0.1")
    page.evaluate("broken.clear()")
    alert.get_by_role("button", name="Retry").click()
    page.locator('.wba-row[data-layer="1"][data-status="ready"]').wait_for()
    expect(alert).to_have_count(0)


def test_maps_that_fail_as_a_whole_can_be_retried(open_view):
    page = open_view(query="?broken=meta", ready=False)
    expect(page.get_by_role("alert")).to_contain_text("The attention maps did not load")
    page.evaluate("broken.clear()")
    page.get_by_role("button", name="Retry").click()
    expect(title(page)).to_have_text("head 0.0")


def test_hostile_tokens_are_shown_as_text(open_view):
    tokens = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202etxt", "")
    page = open_view(maps_of(tokens=tokens))
    chips = page.locator("button.wba-chip")
    expect(chips).to_have_text(
        ["</script><script>alert(1)</script>", "<img·src=x·onerror=alert(1)>", "⟨202E⟩txt", "∅"]
    )
    assert page.locator(".wba img, .wba script").count() == 0
    point_at(page, 1, 0)
    expect(page.locator(".wba-tip")).to_contain_text("<img·src=x")
    assert page.locator(".wba-tip img").count() == 0


def test_270_heads_are_fetched_as_they_come_into_view(open_view):
    page = open_view(maps_of((9,) * 30, TEXT * 4))
    expect(page.locator("button.wba-head")).to_have_count(270)
    page.wait_for_timeout(300)
    asked = page.evaluate("asked.filter((name) => name.startsWith('layer')).length")
    assert 2 <= asked < 20
    thumb(page, 0, 0).focus()
    page.keyboard.press("Control+End")
    page.locator('.wba-row[data-layer="29"][data-status="ready"]').wait_for()
    expect(title(page)).to_have_text("head 29.8")
    assert "layer15" not in page.evaluate("asked")


def test_a_new_description_with_the_same_numbers_keeps_them(open_view):
    """Badges arrive late: nothing is fetched again, and head, lock and focus stay."""
    page = open_view()
    page.locator('.wba-row[data-layer="1"][data-status="ready"]').wait_for()
    thumb(page, 1, 3).click()
    before = page.evaluate("asked.length")
    page.evaluate("""async () => {
      const meta = await source.meta();
      meta.badges["1.3"] = [{label: "copying", value: 0.5}];
      view.update({...source, meta: async () => meta}, {theme: "light"});
    }""")
    expect(thumb(page, 1, 3)).to_contain_text("copying")
    expect(thumb(page, 1, 3)).to_be_focused()
    assert state(page) == {"layer": 1, "head": 3, "locked": True, "pos": None}
    assert page.evaluate("asked.length") == before + 1


def test_destroying_the_view_leaves_nothing_behind(open_view):
    page = open_view()
    page.evaluate("view.destroy()")
    assert page.evaluate("document.getElementById('view').childElementCount") == 0


@pytest.mark.parametrize("kind", ["pattern", "difference", "scores"])
def test_the_browser_decodes_the_values_that_python_decodes(open_view, kind):
    maps = maps_of((3,), tuple(f"t{i}" for i in range(70)), kind=kind)
    page = open_view(maps)
    decoded = page.evaluate("""async () => {
      const layer = await WorkbenchAttention.decode(await source.layer(0));
      return Array.from({length: layer.heads}, (_, head) =>
        Array.from({length: layer.queries}, (_, query) => layer.row(head, query)));
    }""")
    _, expected = decode_layer(encode_layer(maps, 0))
    values = np.array(decoded, np.float32)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    np.testing.assert_allclose(values, expected, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: b"nope" + raw[4:], "not an attention payload"),
        (lambda raw: raw[:-1], "cells, its header"),
        (lambda raw: raw[:20], "ends within its header"),
        (lambda raw: raw.replace(b'"format":1', b'"format":9'), "header is not one"),
    ],
)
def test_the_browser_refuses_a_broken_payload(open_view, spoil, said):
    page = open_view()
    spoilt = list(spoil(gzip.decompress(encode_layer(maps_of(), 0))))
    answer = page.evaluate(
        "(bytes) => WorkbenchAttention.decode(new Uint8Array(bytes)).catch((error) => error.message)",
        spoilt,
    )
    assert said in answer


def test_the_exported_page_works_from_disk_without_any_request(page, tmp_path):
    tokens = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a", "b")
    maps = maps_of(tokens=tokens)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    path = tmp_path / "view.html"
    path.write_text(attention_page(maps, badges=BADGES, options={"state": {"layer": 1, "head": 2}}))
    page.goto(path.as_uri())
    page.locator('.wba-row[data-layer="1"][data-status="ready"]').wait_for()
    expect(title(page)).to_have_text("head 1.2")
    page.locator("button.wba-chip").nth(2).hover()
    expect(page.locator(".wba-exact")).to_have_text("exact")
    value = float(maps.layers[1][2, 2].max())
    expect(page.locator(".wba-legend-row")).to_contain_text(f"{value:.3f}")
    assert asked == [path.as_uri()]


def test_the_notebook_entry_speaks_to_its_kernel(open_view):
    """A stand-in for the widget's model answers with what Python would send."""
    page = open_view()
    page.evaluate("view.destroy()")
    page.evaluate("""async () => {
      const traits = {
        meta: await source.meta(), payloads: {}, state: {layer: 1, head: 0}, theme: "dark", height: 600,
      };
      const heard = {};
      const model = {
        get: (name) => traits[name],
        set: (name, value) => { traits[name] = value; },
        save_changes: () => {},
        on: (name, work) => { heard[name] = work; },
        off: () => {},
        send: async ({ask, id, layer, head, pos}) => {
          const answer = heard["msg:custom"];
          if (ask === "cross") return answer({id, cross: await source.cross(layer, head, pos)}, []);
          if (layer === 0) return answer({id, error: "the kernel is busy"}, []);
          return answer({id}, [new DataView(await source.layer(layer))]);
        },
      };
      window.traits = traits;
      WorkbenchAttention.render({model, el: document.getElementById("view")});
    }""")
    page.locator('.wba-row[data-layer="1"][data-status="ready"]').wait_for()
    expect(title(page)).to_have_text("head 1.0")
    expect(page.get_by_role("alert")).to_contain_text("the kernel is busy")
    page.locator("button.wba-chip").nth(5).hover()
    expect(page.locator(".wba-legend")).to_have_attribute("data-exact", "true")
    thumb(page, 1, 3).click()
    assert page.evaluate("traits.state") == {"layer": 1, "head": 3, "locked": True, "pos": None}


def test_a_range_of_its_own_lets_a_diffuse_head_be_seen(open_view):
    layer = np.full((1, 8, 8), 0.125, np.float32)
    page = open_view(AttentionMaps((layer,), TEXT, TEXT, "pattern", "diffuse", False))
    root = colour_at(page, 5, 3)
    page.get_by_role("button", name="√ scale").click()
    linear = colour_at(page, 5, 3)
    page.get_by_role("button", name="range per head").click()
    blue = [int(colour[1:3], 16) for colour in (linear, root, colour_at(page, 5, 3))]
    assert blue == sorted(blue, reverse=True)
    assert colour_at(page, 5, 3) == SEQUENTIAL[-1]


def test_sharp_screens_get_sharp_pictures(open_page, serve):
    page = open_page(device_scale_factor=2)
    page.goto(serve(site(maps_of())))
    for layer in (0, 1):
        page.locator(f'.wba-row[data-layer="{layer}"][data-status="ready"]').wait_for()
    # What is resized is drawn anew in the next frame.
    page.wait_for_function(
        """() => [...document.querySelectorAll('canvas')].every(
            (c) => Math.abs(c.width / c.getBoundingClientRect().width - 2) < 0.06)"""
    )
    assert page.locator("canvas").count() == 10


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_at_common_widths(open_page, serve, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.goto(serve(site(maps_of())))
    page.locator('.wba-row[data-layer="1"][data-status="ready"]').wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        assert page.evaluate("document.documentElement.scrollHeight") <= 800
