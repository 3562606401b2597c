"""The attention viewer in Chromium: bytes sent, time to the first picture, and time of a redraw.

Run      python -m benchmarks.viewer            needs playwright and /usr/bin/chromium
Redraw   a hover as the page handles it: picture, crosshair, token strip, marks, and a forced layout.
First    from the navigation of a self-contained page to the large view drawn (so no network in it).
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from workbench.attention import AttentionMaps
from workbench.figures.attention_view import attention_page, encode_layer
from workbench.figures.attention_view.payload import decode_layer

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
CASES = {
    "2 x 4 heads, 16 tokens": ((4, 4), 16),
    "1 x 12 heads, 512 tokens": ((12,), 512),
    "30 x 9 heads, 200 tokens": ((9,) * 30, 200),
}
HOVERS = """(selector) => [...document.querySelectorAll(selector)].slice(0, 40).map((element) => {
  const started = performance.now();
  element.dispatchEvent(new PointerEvent("pointerover", {bubbles: true, pointerType: "mouse"}));
  document.body.getBoundingClientRect();
  return [performance.now() - started, WorkbenchAttention.lastRedrawMs];
})"""


def main() -> None:
    """Print one block per case."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, (heads, n_tokens) in CASES.items():
            maps = random_maps(heads, n_tokens)
            path = Path(folder) / "view.html"
            path.write_text(attention_page(maps), encoding="utf-8")
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            print(f"\n{name}")
            report_payload(maps)
            report_page(page, path)
            page.close()
        chromium.close()


def random_maps(heads: tuple[int, ...], n_tokens: int) -> AttentionMaps:
    """Causal patterns from sharp to diffuse; the diffuse ones are the largest to send."""
    random = np.random.default_rng(0)
    layers = []
    for n_heads in heads:
        temperature = np.geomspace(0.3, 8, n_heads)[:, None, None]
        scores = random.normal(size=(n_heads, n_tokens, n_tokens)) * temperature
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * np.tri(n_tokens)
        layers.append((weights / weights.sum(-1, keepdims=True)).astype(np.float32))
    words = ("The", " cat", " sat", " on", " the", " mat", ".", "\n")
    tokens = tuple(words[i % len(words)] for i in range(n_tokens))
    return AttentionMaps(tuple(layers), tokens, tokens, "pattern", "benchmark", True)


def report_payload(maps: AttentionMaps) -> None:
    """Bytes, levels and encoding time of one layer."""
    started = time.perf_counter()
    payload = encode_layer(maps, 0)
    took = time.perf_counter() - started
    levels = decode_layer(payload)[0]["levels"]
    print(f"  payload of layer 0   {len(payload):>9,} bytes, {levels} levels, {took * 1e3:.0f} ms")


def report_page(page: Page, path: Path) -> None:
    """Size of the page, first picture, and redraws."""
    page.goto(path.as_uri())
    page.locator('.wba-row[data-layer="0"][data-status="ready"]').wait_for()
    page.wait_for_timeout(500)
    first = page.evaluate("WorkbenchAttention.firstPaintMs")
    print(f"  page                 {path.stat().st_size:>9,} bytes, first picture {first:.0f} ms")
    for what, selector in (
        ("head", ".wba-row[data-status='ready'] .wba-head"),
        ("token", ".wba-chip"),
    ):
        whole, picture = zip(*page.evaluate(HOVERS, selector), strict=True)
        drawn = f", picture alone {statistics.median(picture):.1f} ms" if what == "head" else ""
        worst = max(whole)
        print(
            f"  hover of a {what:<9} {statistics.median(whole):>6.1f} ms, worst {worst:.1f} ms{drawn}"
        )


if __name__ == "__main__":
    main()
