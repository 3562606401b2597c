"""The paths page: its numbers are the library's and add up; what cannot be asked is refused in its place."""

import ast
import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from dash import html
from tiny_session import Loader, tiny_model

import workbench
from app import path_answers as answers
from app import path_questions as questions
from app.analyses import Question, result_bytes
from app.fields import read_state
from app.pages import paths, residual
from app.views import paths_places, paths_tree
from app.views import residual as residual_views
from app.views.paths_pieces import number, shade, signed, spell_count
from workbench.paths.directions import logit_direction
from workbench.paths.frozen import freeze
from workbench.paths.orders import order_spectrum
from workbench.paths.scores import score_direction, score_parts
from workbench.paths.search import feeds, top_paths
from workbench.sites import Head

PROMPT = "the cat sat on the mat"
SCORE = {"what": "score", "head": "1.1", "query": "4", "key": "2"}
GIVEN = [
    {"check": "embed → 0.1", "through": "1.1;0.1,1.1", "versus": "cat", "pos": "3"},
    {
        "target": "#3",
        "versus": "mean",
        "counted": "heads",
        "scale": "log",
        "k": "3",
        "sort": "layer",
    },
    {**SCORE, "check": "0.1", "than": ""},
    {**SCORE, "side": "query", "than": "1", "through": "0.0", "rows": "1", "sort": "value"},
    {"what": "score", "head": "0.0"},
    {"step": "10", "threshold": "0"},
]


def state_of(session, **given):
    state, _, complaints = read_state(session, paths.FIELDS, {"prompt": PROMPT, **given})
    assert not complaints
    return state


def panel(name):
    return next(one for one in paths.PANELS if one.name == f"paths-{name}")


def ask(session, name, **given):
    state = state_of(session, **given)
    one = panel(name)
    return state, session.analyses.ask(one.question(state), one.compute, wait=60)


def said(components):
    return json.dumps(
        html.Div(components).to_plotly_json(), default=lambda one: one.to_plotly_json()
    )


@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("name", [one.name.removeprefix("paths-") for one in paths.PANELS])
def test_every_panel_is_drawn_and_has_a_table_for_every_question(session, name, given):
    state = state_of(session, **given)
    if panel(name).needs(state):
        return
    _, answer = ask(session, name, **given)
    assert answer.kept is not None, answer.error
    assert panel(name).draw(answer.kept.result, state)
    assert len(answer.kept.table())


@pytest.mark.parametrize(
    "given", [GIVEN[0], GIVEN[1], GIVEN[3], GIVEN[4] | {"check": "embed"}], ids=str
)
@pytest.mark.parametrize("name", [one.name.removeprefix("paths-") for one in paths.PANELS])
def test_the_python_of_a_panel_runs_for_every_question(session, name, given, monkeypatch):
    state = state_of(session, **given)
    if panel(name).needs(state):
        return
    loader = Loader()
    monkeypatch.setattr(
        workbench, "load", lambda name, step=None: loader(name, step=step), raising=False
    )
    code = ast.parse(panel(name).code(state))
    last = code.body.pop()
    names: dict = {}
    exec(compile(code, "panel", "exec"), names)
    shown = eval(compile(ast.Expression(last.value), "panel", "eval"), names)
    assert isinstance(shown, go.Figure | pd.DataFrame)


def test_numbers_are_those_of_the_library(session):
    given = {"target": "mat", "versus": "cat", "pos": "3", "k": "5"}
    frozen = freeze(tiny_model(), PROMPT)
    direction = logit_direction(frozen, "mat", distractor="cat", pos=3)
    found = ask(session, "top", **given)[1].kept.result
    np.testing.assert_allclose(found.values, top_paths(frozen, direction, k=5).values, rtol=1e-5)
    orders = ask(session, "orders", **given)[1].kept.result
    np.testing.assert_allclose(
        orders.orders, order_spectrum(frozen, direction).orders, rtol=1e-4, atol=1e-6
    )
    score = ask(session, "score", **SCORE, than="")[1].kept.result
    whole = score_parts(frozen, Head(1, 1), 4, 2)
    np.testing.assert_allclose(score.values, whole.values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("given", [{}, {**SCORE, "side": "query"}], ids=str)
def test_every_panel_takes_the_same_number_apart(session, given):
    found = {
        name: ask(session, name, **given)[1].kept.result
        for name in ("meter", "orders", "tree", "flow", "tokens")
    }
    total = found["meter"].total
    assert all(one.total == pytest.approx(total, abs=1e-6) for one in found.values())
    assert found["meter"].listed + found["meter"].remainder + found["meter"].bias == pytest.approx(
        total
    )
    level = found["tree"].levels[""]
    assert level.values.sum() + found["tree"].bias == pytest.approx(total, abs=1e-5)
    tokens = found["tokens"]
    assert tokens.values.sum() + tokens.constant + tokens.bias == pytest.approx(total, abs=1e-5)


def test_opened_levels_add_up_to_the_rows_that_they_hang_under(session):
    _, answer = ask(session, "tree", through="1.1;0.1,1.1;1.0")
    tree = answer.kept.result
    assert set(tree.levels) == {"", "1.1", "0.1,1.1", "1.0"}
    for chain, level in tree.levels.items():
        if chain:
            above = tree.levels[answers.parent(chain)]
            row = [part.label for part in above.parts].index(chain.split(",")[0])
            assert level.values.sum() == pytest.approx(above.values[row], abs=1e-5)
    frozen = freeze(tiny_model(), PROMPT)
    found = feeds(frozen, logit_direction(frozen), [questions.component(frozen, "1.1")])
    np.testing.assert_allclose(tree.levels["1.1"].values, found.values, rtol=1e-4, atol=1e-6)


def test_the_tree_shows_few_rows_what_is_open_and_the_sum_of_all_others(session):
    state, answer = ask(session, "tree", through="0.0", rows="2")
    text = said(paths_tree.tree(answer.kept.result, state))
    assert '"data-chain": "0.0"' in text and " more" in text
    assert '"aria-expanded": "true"' in text
    assert '"data-check": "embed' in text
    wide = said(paths_tree.tree(answer.kept.result, state | {"rows": 60}))
    assert " more" not in wide


@pytest.mark.parametrize("through", ["9.9", "0.1,1.1", "1.1;1.0,1.1", "x" * 300, ";;,;"])
def test_what_cannot_be_opened_is_said_and_the_rest_is_shown(session, through):
    state, answer = ask(session, "tree", through=through)
    tree = answer.kept.result
    assert "" in tree.levels
    assert tree.notes and all(
        note[:30] in said(paths_tree.tree(tree, state)) for note in tree.notes
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"what": "score", "head": "9.9"}, "no head 9.9"),
        ({**SCORE, "query": "77"}, "no query 77"),
        ({**SCORE, "key": "77"}, "no key 77"),
        ({**SCORE, "key": "5"}, "key"),  # behind the query
        ({**SCORE, "than": "2"}, "2"),
        ({"pos": "77"}, "no position 77"),
        ({"target": "zebra"}, "zebra"),
        ({"versus": "#99"}, "99"),
        ({"prompt": "the " * 60}, "24"),
        ({"prompt": ""}, "empty"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused_by_name_in_every_panel(session, given, words):
    for name in ("meter", "orders", "tree", "flow", "tokens"):
        _, answer = ask(session, name, **given)
        assert answer.kept is None and words in answer.error


@pytest.mark.parametrize(
    "what", ["7.7", "embed → 7.7", "nothing → 0.1", "1.1 → 0.1", "embed → 1.1 → 0.1"]
)
def test_a_path_that_there_is_not_is_refused_where_it_is_checked(session, what):
    _, answer = ask(session, "check", check=what)
    assert answer.kept is None and answer.error and "internal" not in answer.error


@pytest.mark.parametrize(
    "given",
    [{"threshold": "nan"}, {"threshold": "9"}, {"k": "0"}, {"rows": "x"}, {"than": "me"},
     {"through": "1.1;" * 9000}, {"prompt": "x" * 10**7}, {"query": "-1"}, {"what": "all"}],
    ids=lambda given: str(given)[:30],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_falls_back_with_a_complaint(session, given):
    state, _, complaints = read_state(session, paths.FIELDS, given)
    assert complaints and len(complaints[0]) < 200
    assert state[next(iter(given))] != next(iter(given.values()))


def test_a_prompt_too_large_to_be_taken_apart_is_refused_with_what_fits(session, monkeypatch):
    monkeypatch.setattr(questions, "MOST_BYTES", 30_000)
    _, answer = ask(session, "meter", prompt="the cat " * 10)
    assert "20 tokens" in answer.error and "shorten it" in answer.error
    fits = int(answer.error.split("about ")[1].split()[0])
    assert ask(session, "meter", prompt="cat " * fits)[1].kept is not None


def test_a_model_without_layers_is_taken_apart_and_has_no_scores(session, loader, monkeypatch):
    monkeypatch.setattr("tiny_session.tiny_model", lambda seed=0: tiny_model(seed, order=""))
    for name in ("meter", "orders", "tree", "top", "flow", "tokens"):
        state, answer = ask(session, name)
        assert answer.kept is not None, answer.error
        assert panel(name).draw(answer.kept.result, state)
    assert "no heads" in ask(session, "orders", **SCORE)[1].error


def test_a_network_is_frozen_once_for_all_panels_of_a_prompt(session, monkeypatch):
    frozen = []
    monkeypatch.setattr(
        questions, "freeze", lambda model, prompt: frozen.append(prompt) or freeze(model, prompt)
    )
    for name in ("meter", "orders", "tree", "flow", "tokens"):
        ask(session, name)
        ask(session, name, **SCORE)
    assert frozen == [PROMPT]
    key = Question("paths-frozen", "attn-2l", None, {"prompt": PROMPT}).key
    kept = session.analyses.find(key)
    assert 0 < kept.result.nbytes <= result_bytes(kept.result) < 200_000


def test_a_logit_does_not_depend_on_the_fields_of_a_score(session):
    for name in ("meter", "tree", "flow"):
        first, other = (state_of(session, head=head, query="2") for head in ("0.0", "1.1"))
        assert panel(name).question(first).key == panel(name).question(other).key
    first, other = (state_of(session, **SCORE, target=token) for token in ("", "cat"))
    assert panel("meter").question(first).key == panel("meter").question(other).key


def test_by_default_a_query_is_compared_with_the_key_that_it_attends_to_most(session):
    frozen = freeze(tiny_model(), PROMPT)
    state = state_of(session, what="score", head="1.0")
    head, query, key, versus = questions.place_of(frozen, state)
    pattern = frozen.run.pattern(1)[0, 0, -1]
    assert (head, query, key, versus) == (Head(1, 0), 5, int(pattern.argmax()), "mean")
    total = ask(session, "meter", what="score", head="1.0")[1].kept.result.total
    assert total == pytest.approx(score_direction(frozen, head, query, key, versus="mean").total)
    assert questions.place_of(frozen, state | {"query": 0})[1:] == (0, 0, None)


def test_parts_beyond_the_largest_are_joined_and_nothing_is_lost(session, monkeypatch):
    monkeypatch.setattr(paths_tree, "MOST_PARTS", 3)
    found = ask(session, "score", **SCORE)[1].kept.result
    values, rows, columns = paths_tree.largest_parts(found)
    assert values.shape == (3, 3) and rows[-1].endswith("others") and columns[-1].endswith("others")
    assert values.sum() == pytest.approx(found.values.sum())


def test_a_check_says_in_words_what_its_numbers_say(session):
    state, answer = ask(session, "check", check="embed")
    found = answer.kept.result
    # Nothing follows: the direct path is linear in a model without norms.
    assert found.unfrozen == pytest.approx(found.frozen, rel=1e-3)
    assert "within a tenth" in said(paths_places.check(found, state))


def test_pages_lead_to_each_other_with_what_they_show(session):
    state, answer = ask(session, "score", **SCORE)
    text = said(paths_tree.score(answer.kept.result, state))
    assert "/?model=attn-2l&head=1.1&prompt=the+cat+sat+on+the+mat&locked=1&pos=4" in text
    given = {"prompt": PROMPT, "pos": "3", "target": "mat", "distractor": "mean"}
    state, _, _ = read_state(session, residual.PAGE.fields, given)
    one = next(one for one in residual.PANELS if one.name == "attribution")
    found = session.analyses.ask(one.question(state), one.compute, wait=60).kept.result
    text = said(residual_views.attribution(found, state))
    assert "/paths?model=attn-2l&prompt=the+cat+sat+on+the+mat&pos=3&target=mat&versus=mean" in text


def test_numbers_are_spelled_for_eyes():
    assert signed(-1e-9) == "0.0000" and signed(0.25, 1) == "+0.2"
    assert number(1e-7).children == "1.0e-07" and number(0.0).children == "0.0000"
    assert spell_count(9_999_999) == "9,999,999" and spell_count(10**39) == "1.0e+39"
    assert spell_count(10**500) == "10³⁰⁰ or more"
    assert shade(0.0).endswith("0.000)") and shade(2.0) == shade(1.0) != shade(-1.0)
