import json
import re
import subprocess
import sys

import numpy as np
import pytest

from workbench.attention import AttentionMaps
from workbench.figures.attention_view import attention_page, attention_view, widget
from workbench.figures.attention_view.payload import decode_layer, encode_layer, exact_cross
from workbench.runs import run

HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\ud83d", "<!--")


@pytest.fixture
def maps() -> AttentionMaps:
    values = np.tril(np.random.default_rng(0).random((2, 4, 4))).astype(np.float32)
    values /= values.sum(-1, keepdims=True)
    return AttentionMaps(
        (values, None, values), HOSTILE, HOSTILE, "pattern", "a <b>title</b>", True
    )


def test_importing_the_figures_does_not_import_the_notebook():
    code = (
        "import sys, workbench.figures.attention_view;"
        "sys.exit(any(name in sys.modules for name in ('anywidget', 'ipywidgets', 'IPython')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_shows_its_patterns(model):
    prompts = run(model, ["abca", "dd"], sites=("pattern",))
    view = attention_view(prompts, row=1)
    assert view.meta["query_tokens"] == list(prompts.str_tokens[1])
    header, values = decode_layer(view.payloads["1"])
    assert (header["heads"], header["levels"]) == (4, 254)
    expected = prompts.row(1).pattern(1)[0].numpy()
    exists = np.tri(expected.shape[1], dtype=bool)
    np.testing.assert_allclose(values[:, exists], expected[:, exists], atol=0.005)


def test_small_maps_travel_whole_and_large_ones_on_request(maps, monkeypatch):
    assert sorted(attention_view(maps).payloads) == ["0", "2"]
    monkeypatch.setattr(widget, "EAGER_CELLS", 10)
    assert attention_view(maps).payloads == {}


def answers(view, monkeypatch, *questions):
    sent = []
    monkeypatch.setattr(
        type(view), "send", lambda _, reply, buffers=None: sent.append((reply, buffers))
    )
    for question in questions:
        view._handle_custom_msg(question, [])
    return sent


def test_the_kernel_answers_for_layers_and_exact_lines(maps, monkeypatch):
    layer, cross = answers(
        attention_view(maps),
        monkeypatch,
        {"id": 1, "ask": "layer", "layer": 2},
        {"id": 2, "ask": "cross", "layer": 0, "head": 1, "pos": 3},
    )
    assert layer == ({"id": 1}, [encode_layer(maps, 2)])
    assert cross == ({"id": 2, "cross": exact_cross(maps, 0, 1, 3)}, [])


def test_the_kernel_says_what_is_wrong_with_a_question(maps, monkeypatch):
    (no_layer, _), (no_pos, _) = answers(
        attention_view(maps),
        monkeypatch,
        {"id": 1, "ask": "layer", "layer": 1},
        {"id": 2, "ask": "cross", "layer": 0, "head": 0},
    )
    assert "layer 1 has no attention" in no_layer["error"]
    assert no_pos["id"] == 2
    assert "pos" in no_pos["error"]


def test_the_page_holds_no_markup_from_tokens_or_title(maps):
    page = attention_page(maps, badges={"0.1": [{"label": "</script>", "value": 1.0}]})
    assert page.count("</script>") == 2
    assert "alert(1)</" not in page
    assert "<img" not in page
    assert "<title>a &lt;b&gt;title&lt;/b&gt;: attention</title>" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert tuple(data["meta"]["query_tokens"]) == HOSTILE


def test_the_page_names_no_other_place(maps):
    page = attention_page(maps)
    assert not re.search(r"https?://|\bsrc=\"|@import|url\(", page)
    assert "default-src 'none'" in page


def test_writing_the_page_leaves_no_scratch_file(maps, tmp_path):
    path = attention_view(maps).to_html(tmp_path / "view.html")
    assert [file.name for file in tmp_path.iterdir()] == ["view.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
