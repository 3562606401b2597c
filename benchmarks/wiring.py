"""The wiring picture in Chromium: bytes sent, and the time that redrawing its lines takes.

Run      python -m benchmarks.wiring            needs playwright and /usr/bin/chromium
Redraw   all three canvases, and one pixel read back, so that Chromium has really drawn. Without a GPU the
         page's own thread draws, so its CPU time is what a machine that does nothing else would take.
Goal     20,000 lines within 250 ms.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from playwright.sync_api import Page, sync_playwright

import workbench
from benchmarks.viewer import CHROMIUM, FLAGS
from workbench.figures.wiring import payload, wiring_page
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.wires import Network
from workbench.training.wiring_picture import wiring_picture

REDRAW = """() => {
  const started = performance.now();
  window.views[0].redraw();
  document.querySelector(".wbw-lines").getContext("2d").getImageData(0, 0, 1, 1);
  return performance.now() - started;
}"""
TURNS = 9


def main() -> None:
    """Print one block per network."""
    cases: dict[str, Network] = {
        "4-20-20-2, untrained": MLP(MLPConfig(widths=(4, 20, 20, 2))),
        "normal weights, 20,000 lines": normal_mlp(),
        **{name: workbench.load(name) for name in ("induction-2l", "attn-2l", "mlp-2l")},
    }
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, model in cases.items():
            started = time.perf_counter()
            picture = wiring_picture(model)
            took = time.perf_counter() - started
            path = Path(folder) / "wiring.html"
            path.write_text(wiring_page([payload(picture)]), encoding="utf-8")
            print(
                f"\n{name}: {picture.shown:,} of {picture.n_lines:,} wires, chosen in {took:.2f} s"
            )
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            report_page(page, path)
            page.close()
        chromium.close()


def normal_mlp() -> MLP:
    """A network as wide as 20,000 wires make it, its weights from a normal distribution."""
    model = MLP(MLPConfig(widths=(100, 100, 100), bias=False))
    with torch.no_grad():
        for layer in model.layers:
            layer.W.normal_(generator=torch.Generator().manual_seed(0))
    return model


def report_page(page: Page, path: Path) -> None:
    """Size of the page and time of its redraws, by the clock and of the page's thread."""
    page.goto(path.as_uri())
    page.locator(".wbw-count").wait_for()
    page.wait_for_timeout(300)
    chromium = page.context.new_cdp_session(page)
    chromium.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = chromium.send("Performance.getMetrics")["metrics"]
        return next(1e3 * each["value"] for each in metrics if each["name"] == "TaskDuration")

    page.evaluate(REDRAW)
    clock, thread = [], []
    for _ in range(TURNS):
        before = spent()
        clock.append(page.evaluate(REDRAW))
        thread.append(spent() - before)
    print(f"  page     {path.stat().st_size:>9,} bytes")
    print(
        f"  redraw   {statistics.median(thread):>6.0f} ms of CPU, {statistics.median(clock):.0f} ms by the "
        f"clock (best {min(clock):.0f})   goal 250 ms"
    )


if __name__ == "__main__":
    main()
