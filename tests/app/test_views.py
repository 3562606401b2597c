"""What the page says of a view is true: its Python recomputes it, its options match the models."""

from urllib.parse import parse_qsl

import numpy as np
import pytest
from tiny_session import Loader, tiny_models

import workbench
from app.initial import initial_view
from app.pages import attention_layout as layout
from app.prompts import matched_pair
from app.state import KINDS, View, to_query
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


def test_only_an_address_that_says_so_subtracts_the_end_of_training(session):
    query = {"view": "training", "step": "10"}
    assert initial_view(session, query | {"before": "final"})[0].before is None
    assert initial_view(session, query)[0].before == 10
    assert initial_view(session, query | {"before": "x"})[0].before == 10
    view, info, _ = initial_view(session, query | {"before": "final"})
    slider = str(layout.sliders(info, view)[1])
    assert "finished" in slider
    assert "value=2" in slider
    assert ("before", "final") in parse_qsl(to_query(view))


def test_the_second_prompt_is_the_first_with_one_word_replaced(session):
    view, _, _ = initial_view(session, {"view": "difference"})
    assert view.other == "the dog sat on the mat"
    shown = session.request(view, wait=30).shown
    assert shown.maps.query_tokens[1] == "dog→cat"
    assert shown.note == ""
    own, _, _ = initial_view(session, {"view": "difference", "prompt": "a dog ran to a mat"})
    assert own.other != own.prompt
    assert len(own.other.split()) == 6


@pytest.mark.parametrize("prompt", ["", "==", "100 100 =", "Zebra9Zebra9Z", "a" * 30_000])
def test_every_prompt_has_a_partner_or_is_its_own(prompt):
    assert len(matched_pair(prompt)) <= len(prompt) + 9


def test_a_mean_starts_with_several_prompts_of_one_line(session):
    view, _, _ = initial_view(session, {"view": "mean"})
    assert view.prompts == ["the cat sat on the mat", "the dog sat on the mat"]
    view, _, _ = initial_view(session, {"view": "mean", "model": "other"})
    assert len(view.prompts) == 2


def test_what_a_view_leaves_out_is_said(session):
    cut = session.request(View(kind="mean", prompt="the cat sat\nthe cat"), wait=30).shown
    assert "cut to the 2 tokens" in cut.note
    assert "2 of 3 tokens" in str(views.facts(cut))
    view = View(kind="difference", prompt="the cat sat on", other="the cat a dog sat on")
    unpaired = session.request(view, wait=30).shown
    assert "0 tokens of the first prompt, 2 of the second" in unpaired.note
    assert "unaligned" not in unpaired.maps.title


def test_a_prompt_too_long_for_the_page_is_not_kept(session):
    view, info, complaints = initial_view(session, {"prompt": "a" * 20_001})
    assert view.prompt == info.example_prompts[0]
    assert "20,001" in complaints[0]
