"""The wiring picture in Chromium: colours of lines, units under pointer and keys, sliders."""

import dash_mantine_components as dmc
import pytest
import torch
from dash import Dash, Input, Output, html
from flask import Response

from app.views.wiring import pruning_panel, register_pruning, register_wiring, wiring_panel
from workbench.figures.wiring import WIRING_CSS, WIRING_JS, payload, wiring_html
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.modularity.pruning_curve import pruning_curve
from workbench.training.regularizers.exchange import movables, permute
from workbench.training.wiring_picture import wiring_picture
from workbench.training.wiring_series import wiring_series

FILES = {"wiring.js": (WIRING_JS, "text/javascript"), "wiring.css": (WIRING_CSS, "text/css")}
# The colour in the middle of the line between two units, on the canvas of lines.
MIDDLE = """([a, b]) => {
  const view = window.views[0], canvas = document.querySelector(".wbw-lines");
  const [p, q] = [view.place(...a), view.place(...b)];
  const at = [Math.round((p.x + q.x) / 2), Math.round((p.y + q.y) / 2)];
  return [...canvas.getContext("2d").getImageData(at[0], at[1], 1, 1).data];
}"""


def planted():
    """One strong wire of each sign, one tiny one, nothing else."""
    model = MLP(MLPConfig(widths=(3, 3), bias=False))
    with torch.no_grad():
        model.layers[0].W.copy_(torch.diag(torch.tensor([2.0, -2.0, 1e-5])))
    return model


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hue_shows_the_sign_and_zero_is_invisible(open_page, tmp_path, scheme):
    page = open_page(color_scheme=scheme)
    page.goto(wiring_html(wiring_picture(planted()), tmp_path / "w.html").as_uri())
    page.locator(".wbw-count", has_text="all 3 wires drawn").wait_for()
    positive, negative, none = (
        page.evaluate(MIDDLE, [["inputs", i], ["outputs", i]]) for i in range(3)
    )
    assert positive[3] > 150 and positive[2] > positive[0] + 40
    assert negative[3] > 150 and negative[0] > negative[2] + 40
    assert none[3] == 0


def test_a_series_moves_its_units_and_says_the_step(page, tmp_path):
    first, second = planted(), planted()
    permute(second, next(iter(movables(second))), torch.tensor([2, 1, 0]))
    page.emulate_media(reduced_motion="reduce")
    page.goto(wiring_html(wiring_series([first, second], [0, 40]), tmp_path / "s.html").as_uri())
    page.locator(".wbw-steps", has_text="step 0").wait_for()
    assert page.evaluate(MIDDLE, [["inputs", 0], ["outputs", 0]])[3] > 150
    page.locator(".wbw-steps input").press("ArrowRight")
    page.locator(".wbw-steps", has_text="step 40").wait_for()
    # What stood at place 0 stands at place 2 now, and is still wired to output 0.
    assert page.evaluate(MIDDLE, [["inputs", 2], ["outputs", 0]])[3] > 150
    page.locator(".wbw-stage").hover(position=page.evaluate("views[0].place('inputs', 2)"))
    page.locator(".wbw-tip", has_text="x1 (inputs 2)").wait_for()


def test_twenty_thousand_lines_are_drawn(page, tmp_path):
    model = MLP(MLPConfig(widths=(150, 150, 20)))
    page.goto(wiring_html(wiring_picture(model), tmp_path / "many.html").as_uri())
    page.locator(".wbw-count", has_text="20,000 of 25,500 wires drawn").wait_for()
    assert page.evaluate("window.wiring.lastRedrawMs") > 0


def dashboard(model):
    app = Dash(
        "app", external_scripts=["/viewer/wiring.js"], external_stylesheets=["/viewer/wiring.css"]
    )

    @app.server.get("/viewer/<name>")
    def viewer(name):
        return Response(FILES[name][0], mimetype=FILES[name][1])

    curve = pruning_curve(model, lambda masks: 0.25, [0, 0.1, 3])
    parts = [wiring_panel(payload(wiring_picture(model)), "w"), pruning_panel(curve, None, "p")]
    app.layout = dmc.MantineProvider([*parts, html.Div(id="told")])
    register_wiring(app, "w")
    register_pruning(app, "p", "w")

    @app.callback(Output("told", "children"), Input("w-dot", "data"))
    def told(dot):
        return str(dot and (dot["group"], dot["index"], dot["label"]))

    return app


def test_units_answer_to_pointer_and_keys_and_the_slider_cuts(page, serve):
    page.goto(serve(dashboard(planted())))
    count, told = page.locator(".wbw-count"), page.locator("#told")
    count.get_by_text("all 3 wires drawn").wait_for()
    page.locator("#p-said", has_text="All 3 wires: loss 0.25.").wait_for()
    stage = page.locator(".wbw-stage")
    stage.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowRight", "Enter"):
        stage.press(key)
    told.get_by_text("('outputs', 2, 'y3')").wait_for()
    assert "1 in, 0 out" in page.locator(".wbw-said").text_content()
    stage.press("Escape")
    told.get_by_text("None").wait_for()
    page.locator("#p [role=slider]").press("ArrowRight")
    page.locator("#p-said", has_text="2 of 3 wires with |w| ≥ 0.1: loss 0.25").wait_for()
    count.get_by_text("2 of 3 wires drawn with |w| ≥ 0.10").wait_for()
    page.locator("#p [role=slider]").press("End")
    count.get_by_text("0 of 3 wires drawn").wait_for()
