"""Every page of panels: opens on any address, answers every panel, and its Python reproduces what it shows."""

import ast
import json
import threading
import time

import pandas as pd
import plotly.graph_objects as go
import pytest
from tiny_session import Loader, tiny_models

import workbench
from app.fields import read_state
from app.main import PAGES, create_app
from app.page import STATE, Page

CALLBACK = "/_dash-update-component"
PANEL_PAGES = [page.PAGE for page in PAGES if hasattr(page, "PAGE")]
PANELS = [(page, panel) for page in PANEL_PAGES for panel in page.panels]
JUNK = {"model": "<img src=x>", "step": "x", "prompt": "\ud800", "head": "9999.9999", "pos": "-1"}


def name_of(value):
    return value.title if isinstance(value, Page) else getattr(value, "name", None)


@pytest.mark.parametrize("page", PANEL_PAGES, ids=name_of)
@pytest.mark.parametrize("query", [{}, JUNK, {"model": "other", "head": ""}])
def test_a_page_opens_on_any_address(session, page, query):
    said = str(page.layout(session, query, []).to_plotly_json())
    assert all(panel.title in said for panel in page.panels)
    if query is JUNK:
        assert "no model '<img src=x>'" in said


@pytest.mark.parametrize("page", PANEL_PAGES, ids=name_of)
def test_every_field_has_a_control(session, page):
    said = page.layout(session, {}, [])
    controls = {
        found.id["field"]
        for found in said._traverse()
        if isinstance(getattr(found, "id", None), dict) and found.id.get("type") == "control"
    }
    assert controls == {"model", "step", *(field.name for field in page.fields)}


def test_panels_have_names_of_their_own():
    names = [panel.name for _, panel in PANELS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("page", "panel"), PANELS, ids=name_of)
def test_a_panel_reads_only_fields_that_its_page_has(session, page, panel):
    state, _, _ = read_state(session, page.fields, {})
    assert {*panel.uses, *panel.draws} <= set(state)
    json.dumps(dict(panel.question(state).arguments))


def answered(session, page, panel, **query):
    state, _, complaints = read_state(session, page.fields, query)
    assert not complaints
    answer = session.analyses.ask(panel.question(state), panel.compute, wait=60)
    return state, answer


@pytest.mark.parametrize(("page", "panel"), PANELS, ids=name_of)
def test_a_panel_answers_draws_and_has_a_table(session, page, panel):
    state, answer = answered(session, page, panel)
    if panel.needs(state):
        return
    assert answer.kept is not None, answer.error
    assert panel.draw(answer.kept.result, state)
    table = answer.kept.table()
    assert isinstance(table, pd.DataFrame)
    assert len(table)


@pytest.mark.parametrize(("page", "panel"), PANELS, ids=name_of)
def test_the_python_of_a_panel_runs(session, page, panel, monkeypatch):
    state, _, _ = read_state(session, page.fields, {})
    if panel.needs(state):
        return
    loader = Loader()
    monkeypatch.setattr(
        workbench, "load", lambda name, step=None: loader(name, step=step), raising=False
    )
    code = ast.parse(panel.code(state))
    last = code.body.pop()
    assert isinstance(last, ast.Expr)
    names: dict = {}
    exec(compile(code, "panel", "exec"), names)
    shown = eval(compile(ast.Expression(last.value), "panel", "eval"), names)
    assert isinstance(shown, go.Figure | pd.DataFrame)


def call(client, output, inputs, state=(), changed=()):
    """The answer to one callback, as the browser asks for it."""
    ids = [part.rsplit(".", 1) for part in output.strip(".").split("...")]
    outputs = [{"id": name, "property": prop} for name, prop in ids]
    body = {
        "output": output,
        "outputs": outputs if output.startswith("..") else outputs[0],
        "inputs": [{"id": i, "property": p, "value": v} for i, p, v in inputs],
        "state": [{"id": i, "property": p, "value": v} for i, p, v in state],
        "changedPropIds": list(changed),
    }
    return client.post(CALLBACK, json=body)


@pytest.fixture
def app(session):
    return create_app(session)


def show(app, page, panel, given, *, drawn=None, asked=None, changed=f"{STATE}.data"):
    frame = panel.frame
    output = next(key for key in app.callback_map if key.startswith(f"..{frame.body}.children"))
    answer = call(
        app.server.test_client(),
        output,
        [(STATE, "data", given), (frame.tick, "n_intervals", 0), (frame.retry, "n_clicks", 0)],
        [(frame.drawn, "data", drawn), (frame.asked, "data", asked)],
        [changed],
    )
    assert answer.status_code == 200
    return answer.json["response"]


def until_done(app, page, panel, given, **options):
    for _ in range(200):
        found = show(app, page, panel, given, **options)
        if not found[f"{panel.name}-tick"]["disabled"]:
            continue
        return found
    raise AssertionError("never done")


def test_a_panel_is_drawn_once_and_again_only_when_its_state_changes(app, session):
    page, panel = PANELS[0]
    state, _, _ = read_state(session, page.fields, {})
    found = until_done(app, page, panel, state)
    assert found[panel.frame.body]["className"] == "panel-body"
    drawn = found[panel.frame.drawn]["data"]
    again = show(app, page, panel, state, drawn=drawn)
    assert "children" not in again[panel.frame.body]
    other = until_done(app, page, panel, {**state, "prompt": "a dog ran"}, drawn=drawn)
    assert other[panel.frame.drawn]["data"] != drawn
    assert "children" in other[panel.frame.body]


@pytest.mark.parametrize("given", [None, 3, {"prompt": ["x"]}, {"prompt": "\0"}, {"model": "../x"}])
def test_junk_in_place_of_a_state_is_answered_in_the_panel(app, given):
    page, panel = PANELS[0]
    found = until_done(app, page, panel, given)
    said = json.dumps(found)
    assert any(word in said for word in ("could not be read", "must be text", "null", "no model"))


def test_a_prompt_that_cannot_be_read_is_explained_and_the_old_content_stays(app, session):
    page, panel = PANELS[0]
    state, _, _ = read_state(session, page.fields, {"prompt": "the zebra"})
    found = until_done(app, page, panel, state)
    assert "zebra" in json.dumps(found[f"{panel.name}-said"])
    assert "children" not in found[panel.frame.body]
    assert found[panel.frame.body]["className"] == "panel-body stale"
    assert found[panel.frame.retry]["hidden"]


def test_cancel_stops_what_the_panel_computes(session, loader):
    page, panel = PANELS[0]
    started, go_on = threading.Event(), threading.Event()

    def slow(name, report):
        started.set()
        go_on.wait(10)
        report("converting the weights")

    loader.before = slow
    app = create_app(session)
    state, _, _ = read_state(session, page.fields, {})
    show(app, page, panel, state)
    assert started.wait(10)
    frame = panel.frame
    call(
        app.server.test_client(),
        f"{frame.cancel}.disabled",
        [(frame.cancel, "n_clicks", 1)],
        [(STATE, "data", state)],
        [f"{frame.cancel}.n_clicks"],
    )
    go_on.set()
    loader.before = lambda name, report: None
    until = time.monotonic() + 20
    while not session.analyses.is_idle:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert session.analyses.find(panel.question(state).key) is None
    assert until_done(app, page, panel, state)[frame.body]["className"] == "panel-body"


def test_a_visitor_who_asks_something_else_or_leaves_stops_what_was_asked(session, monkeypatch):
    left = []
    monkeypatch.setattr(session.analyses, "leave", left.append)
    app, (page, panel) = create_app(session), PANELS[0]
    state, _, _ = read_state(session, page.fields, {})
    key = panel.question(state).key
    until_done(app, page, panel, {**state, "prompt": "a dog ran"}, asked=key)
    assert set(left) == {key}
    until_done(app, page, panel, state, asked=key)
    assert set(left) == {key}
    left.clear()
    client = app.server.test_client()
    for body in ([key, 3, None, "x"], [key] * 1000, {"a": 1}, 3):
        assert client.post("/api/leave", json=body).status_code == 204
    assert left == [key, "x", *[key] * 64]
    assert client.post("/api/leave", data="[]").status_code == 415


def test_models_that_cannot_be_chosen_are_listed_disabled(session):
    said = str(PANEL_PAGES[0].layout(session, {}, []))
    assert all(info.name in said for info in tiny_models())


def test_every_page_is_linked_and_the_current_one_is_marked(app):
    client = app.server.test_client()
    for page in PAGES:
        found = call(
            client,
            "..nav.children...skip.href..",
            [("url", "pathname", page.PATH)],
            changed=["url.pathname"],
        )
        links = found.json["response"]["nav"]["children"]
        assert [link["props"]["href"] for link in links] == [each.PATH for each in PAGES]
        marked = [link["props"]["href"] for link in links if "aria-current" in link["props"]]
        assert marked == [page.PATH]


def test_a_page_asks_to_be_built_anew_for_another_model(app):
    answer = call(
        app.server.test_client(),
        "page.children",
        [("url", "pathname", "/residual"), ("reopen", "data", "?model=other")],
        [("url", "search", "?model=attn-2l")],
        ["reopen.data"],
    )
    assert "a dog ran" in answer.text
