"""What the page says of a view is true: its Python recomputes it, its options match the models."""

import numpy as np
import pytest
from tiny_session import Loader, tiny_models

import workbench
from app.pages.attention_layout import initial_view
from app.state import KINDS, View
from app.views import attention as views


@pytest.mark.parametrize("kind", KINDS)
def test_the_python_of_a_view_computes_the_same_maps(session, monkeypatch, kind):
    view = View(
        prompt="the cat sat\non the mat",
        kind=kind,
        other="the dog sat on a mat",
        step=100,
        before=10,
    )
    shown = session.request(view, wait=30).shown
    loader = Loader()
    monkeypatch.setattr(
        workbench, "load", lambda name, step=None: loader(name, step=step), raising=False
    )
    monkeypatch.setattr(workbench, "attention_view", lambda maps: maps, raising=False)
    names: dict = {}
    exec(views.code(view), names)
    for mine, theirs in zip(shown.maps.layers, names["maps"].layers, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_models_that_are_missing_are_listed_but_cannot_be_chosen():
    groups = {group["group"]: group["items"] for group in views.model_options(tiny_models())}
    assert [item["value"] for item in groups["Trained here"]] == ["attn-2l", "other"]
    assert groups["Public models"][0]["disabled"]
    assert "pip install" in str(views.missing_models(tiny_models())[0])


def test_checkpoints_are_compared_only_where_there_are_some():
    assert not any(option["disabled"] for option in views.kind_options(True))
    assert [o["value"] for o in views.kind_options(False) if o["disabled"]] == ["training"]


def test_numbers_read_well():
    assert views.spell_count(134_515_008) == "134.5 M"
    assert views.spell_count(2000) == "2 k"
    assert views.spell_seconds(0.038) == "38 ms"
    assert views.spell_step(None) == "finished"


def test_the_first_screen_shows_an_example_of_the_default_model(session):
    view, info, complaints = initial_view(session, {})
    assert (view.model, view.prompt, complaints) == ("attn-2l", info.example_prompts[0], [])


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"model": "nothing"}, "no model 'nothing'"),
        ({"model": "minilm"}, "not available"),
        ({"model": "../../etc"}, "no model"),
        ({"view": "nonsense"}, "no view"),
        ({"step": "11"}, "no checkpoint of step 11"),
        ({"model": "other", "view": "training"}, "no checkpoints to compare"),
    ],
)
def test_an_address_that_cannot_be_meant_falls_back_and_says_so(session, query, word):
    view, info, complaints = initial_view(session, query)
    assert info.available
    assert len(complaints) == 1
    assert word in complaints[0]
    assert view.prompt == info.example_prompts[0]


def test_without_any_model_the_page_says_what_to_do(session, monkeypatch):
    monkeypatch.setattr(session, "_list_models", list)
    with pytest.raises(workbench.WorkbenchError, match="workbench train"):
        initial_view(session, {})


def test_who_brings_a_model_sees_it_first(session, monkeypatch, tmp_path):
    named = session.models()
    (tmp_path / "card.json").write_text('{"example_prompts": ["a b a"]}')
    own = workbench.models.own_model(str(tmp_path))
    monkeypatch.setattr(session, "_list_models", lambda: [own, *named])
    view, _, complaints = initial_view(session, {})
    assert (view.model, view.prompt, complaints) == (str(tmp_path), "a b a", [])
    assert f"workbench.load({str(tmp_path)!r})" in views.code(view)
    assert views.model_options(session.models())[0]["group"] == "Your own"
    asked = initial_view(session, {"model": "other"})[0]
    assert asked.model == "other"
