"""What the viewer is sent is what the picture holds; pictures side by side share a scale; the page is alone."""

import copy
import json
import re

import numpy as np
import pytest
import torch

from app.views.wiring import pruning_panel, responses_panel, wiring_panel
from tests.test_weights import OWN, randomised
from workbench.errors import ConfigError
from workbench.figures.theme import DIVERGING
from workbench.figures.wiring import WIRING_JS, payload, wiring_html, wiring_page
from workbench.figures.wiring.curves import pruning_figure, response_figure
from workbench.figures.wiring.payload import frames_of, unpacked
from workbench.training.mlp import MLP, MLPConfig
from workbench.training.modularity.pruning_curve import pruning_curve
from workbench.training.regularizers.exchange import movables, permute
from workbench.training.responses import responses
from workbench.training.tasks import formula_task
from workbench.training.wiring_picture import wiring_picture
from workbench.training.wiring_series import wiring_series


def network(scale=1.0):
    model = MLP(MLPConfig(widths=(4, 8, 6, 2)))
    with torch.no_grad():
        for layer in model.layers:
            layer.W.mul_(scale)
    return model


def said(component) -> str:
    return json.dumps(component.to_plotly_json(), default=lambda part: part.to_plotly_json())


@pytest.mark.parametrize(
    "make", [lambda build: network(), lambda build: randomised(build, OWN["tied"])]
)
def test_the_payload_is_json_and_holds_the_picture(build, make):
    picture = wiring_picture(make(build), limit=500)
    given = json.loads(json.dumps(payload(picture), allow_nan=False))
    (frame,) = frames_of(given)
    for name in ("source", "target", "weight", "block"):
        np.testing.assert_array_equal(frame[name], getattr(picture.lines, name))
    for name, kind in {"group": "<u2", "index": "<u4"}.items():
        np.testing.assert_array_equal(
            unpacked(given["dots"][name], kind), getattr(picture.dots, name)
        )
    np.testing.assert_allclose(unpacked(given["dots"]["x"], "<f4"), picture.dots.x, rtol=1e-6)
    assert given["frames"][0]["wires"] == picture.n_lines
    assert {block["name"]: block["limit"] for block in given["blocks"]} == picture.limits()


def test_pictures_side_by_side_share_limits_and_density():
    small, large = (wiring_picture(network(scale)) for scale in (1, 3))
    pair = payload(small, like=[large]), payload(large, like=[small])
    assert pair[0]["blocks"] == pair[1]["blocks"] == payload(large)["blocks"]
    assert pair[0]["density"] == pair[1]["density"] != payload(small)["density"] / 3
    with pytest.raises(ConfigError, match="cannot share"):
        payload(small, like=[wiring_picture(MLP(MLPConfig(widths=(4, 2))))])
    with pytest.raises(ConfigError, match="cannot share"):
        payload(small, like=[wiring_picture(network(), scale="block")])


def test_a_series_has_one_frame_for_each_step_and_says_who_moved():
    first, second = network(), network()
    items = next(items for items in movables(second) if items.name == "inputs")
    permute(second, items, torch.tensor([2, 0, 1, 3]))
    given = payload(wiring_series([first, copy.deepcopy(first), second], [0, 5, 9]))
    assert [frame["step"] for frame in given["frames"]] == [0, 5, 9]
    assert [frame["stands"] is None for frame in given["frames"]] == [True, True, False]
    stands = unpacked(given["frames"][2]["stands"], "<u4")
    assert stands[:4].tolist() == second.in_perm.argsort().tolist()


def test_a_page_holds_everything_and_asks_nothing(tmp_path):
    model = network()
    model.name = "</script><b>&"
    text = wiring_html(wiring_picture(model), tmp_path / "wiring.html").read_text()
    assert "default-src 'none'" in text and "</script><b>" not in text
    assert not re.search(r"https?://", text)
    both = wiring_page([payload(wiring_picture(network())), payload(wiring_picture(network()))])
    assert both.count('"format":1') == 2


def test_hues_are_those_of_the_other_figures():
    inks = WIRING_JS.split("const INKS")[1].split("};")[0]
    assert all(ink in DIVERGING for ink in re.findall(r"light: .*", inks)[0].split('"')[1::2])


def test_the_pruning_figure_marks_a_step_and_the_panel_is_json():
    curve = pruning_curve(network(), lambda masks: float("inf"), [0, 0.1, 0.2])
    figure = pruning_figure(curve, 1)
    assert figure.layout.shapes[0].x0 == 1 and figure.layout.yaxis.type == "linear"
    panel = pruning_panel(curve, 0.15, "prune")
    assert '"value": 1' in said(panel) and "Infinity" not in json.dumps(panel.children[0].data)


def test_the_response_figure_shows_the_first_features_on_one_scale():
    found = responses(network(), formula_task("independence"), "hidden 0", 1)
    figure = response_figure(found)
    assert len(figure.data) == 4
    assert found.features[0].name in figure.layout.annotations[0].text
    panel = said(responses_panel(found))
    assert "Strongest wires in" in panel and "hidden 0" in panel
    assert "not read" in said(responses_panel(responses(network(), None, "inputs", 0)))


def test_tokens_spelled_alike_keep_their_bars(build):
    model = randomised(build, {"order": "s"})
    tokens = torch.randint(0, 18, (4, 8), generator=torch.Generator().manual_seed(0))
    figure = response_figure(responses(model, tokens, "stream", 0))
    for bar in figure.data:
        if bar.type == "bar":
            assert len(set(bar.x)) == len(bar.x)


def test_the_panel_names_its_stores():
    panel = said(wiring_panel(None, "run-wiring"))
    for name in ("data", "threshold", "frame", "dot"):
        assert f'"run-wiring-{name}"' in panel
