"""The circuits and composition pages: what they show is what the library computes, and refusals are said."""

import json

import numpy as np
import pandas as pd
import pytest
from dash import html
from tiny_session import Loader, tiny_model

import workbench
from app import circuit_answers as answers
from app import composition_answers, trigram_answers
from app.analyses import Question
from app.fields import read_state
from app.jobs import Job, Progress
from app.pages import circuits, composition
from app.views import circuits as views
from app.views import composition as composition_views
from workbench.circuits.copying import copying_scores
from workbench.circuits.full import ov_circuit, qk_circuit
from workbench.composition.scores import composition_scores
from workbench.composition.virtual import virtual_head, virtual_pattern
from workbench.errors import PromptError, SiteError, UnsupportedError
from workbench.sites import Head
from workbench.weights import effective_weights

VIRTUAL = {"head": "1.0", "earlier": "0.1", "through": "K", "circuit": "QK"}


def report():
    return Progress(Job())


def state_of(session, page=circuits, **given):
    state, _, complaints = read_state(session, page.PAGE.fields, given)
    assert not complaints
    return state


def said(components) -> str:
    return json.dumps(
        [part.to_plotly_json() for part in components], default=lambda x: x.to_plotly_json()
    )


def panels_of(page):
    return [pytest.param(page, panel, id=panel.name) for panel in page.PANELS]


def test_skip_trigrams_are_counted_only_when_asked(session):
    panel = next(one for one in circuits.PANELS if one.name == "circuit-counted")
    assert "switch on" in panel.needs(state_of(session))
    assert panel.needs(state_of(session, count="on")) == ""


@pytest.mark.parametrize(("page", "panel"), panels_of(circuits))
@pytest.mark.parametrize(
    "given",
    [
        {"circuit": "QK"},
        VIRTUAL,
        VIRTUAL | {"through": "V", "circuit": "OV"},
        {"head": "1.1", "by": "size", "k": "3", "token": "cat", "side": "column"},
        {"token": "#3", "source": "cat", "out": "#2"},
        {"step": "10", "embedding": "raw"},
    ],
    ids=str,
)
def test_a_panel_of_every_circuit_is_drawn_and_has_a_table(session, page, panel, given):
    state = state_of(session, **given)
    answer = session.analyses.ask(panel.question(state), panel.compute, wait=60)
    assert answer.kept is not None, answer.error
    assert panel.draw(answer.kept.result, state)
    assert len(answer.kept.table())


def shown_by(code, monkeypatch):
    """What a notebook shows after a panel's Python."""
    loader = Loader()
    monkeypatch.setattr(
        workbench, "load", lambda name, step=None: loader(name, step=step), raising=False
    )
    *lines, last = code.splitlines()
    names: dict = {}
    exec("\n".join(lines), names)
    return eval(last, names)


@pytest.mark.parametrize("name", ["heads", "entries", "offsets", "geometry", "trigrams", "counted"])
@pytest.mark.parametrize(
    "given", [{"head": "1.0"}, VIRTUAL, {"source": "cat", "step": "10"}], ids=str
)
def test_the_python_of_a_circuit_gives_the_numbers_of_its_panel(session, monkeypatch, name, given):
    panel = next(one for one in circuits.PANELS if one.name == f"circuit-{name}")
    state = state_of(session, **given)
    mine = session.analyses.ask(panel.question(state), panel.compute, wait=60).kept.table()
    theirs = shown_by(panel.code(state), monkeypatch)
    numbers = [column for column in theirs if pd.api.types.is_float_dtype(theirs[column])]
    assert numbers
    pd.testing.assert_frame_equal(mine[numbers], theirs[numbers], check_exact=True)


@pytest.mark.parametrize(
    "given", [{}, {"baseline": "singular", "inputs": "K", "value": "z"}], ids=str
)
def test_the_python_of_a_composition_gives_the_pairs_that_are_shown(session, monkeypatch, given):
    state = state_of(session, composition, **given)
    panel = next(one for one in composition.PANELS if one.name == "composition-pairs")
    found = session.analyses.ask(panel.question(state), panel.compute, wait=60).kept.result
    drawn = html.Div(panel.draw(found, state))._traverse()
    shown = next(part.rowData for part in drawn if hasattr(part, "rowData"))
    theirs = shown_by(panel.code(state), monkeypatch)
    assert [row["reader"] for row in shown] == theirs["reader"].tolist()
    np.testing.assert_array_equal([row["score"] for row in shown], theirs["score"])


def test_the_score_beside_the_eigenvalues_is_the_heads_copying_score(session):
    state = state_of(session, head="1.1")
    found = answers.eigenvalues(tiny_model(), state, report())
    weights = effective_weights(tiny_model())
    table = copying_scores(weights, n_null=2, n_tokens=0).table()
    expected = table[(table["layer"] == 1) & (table["head"] == 1)]["score"].iloc[0]
    assert found.cloud.score == pytest.approx(expected, abs=1e-6)
    assert f"{expected:+.3f}" in said(views.eigenvalues(found, state)[:1])


def test_the_row_of_a_token_is_sorted_from_both_ends(session):
    model, state = tiny_model(), state_of(session, token="mat")
    row = ov_circuit(effective_weights(model), Head(0, 0)).row(5).numpy()
    found = answers.line(model, state, report())
    assert (found.token, found.id, found.axis, found.other_axis) == ("mat", 5, "source", "out")
    largest = found.ends[found.ends["side"] == "largest"]
    np.testing.assert_allclose(largest["value"], np.sort(row)[::-1], rtol=1e-6)
    smallest = found.ends[found.ends["side"] == "smallest"]
    np.testing.assert_allclose(smallest["value"], np.sort(row), rtol=1e-6)
    assert found.own == pytest.approx(row[5])


def test_the_column_of_a_query_circuit_is_over_its_queries(session):
    model = tiny_model()
    state = state_of(session, token="mat", side="column", circuit="QK")
    column = qk_circuit(effective_weights(model), Head(0, 0)).column(5).numpy()
    found = answers.line(model, state, report())
    assert (found.axis, found.other_axis) == ("key", "query")
    assert found.ends["value"].iloc[0] == pytest.approx(column.max())


def test_without_a_token_the_last_one_of_the_text_is_shown(session):
    found = answers.line(tiny_model(), state_of(session, prompt="the cat"), report())
    assert (found.token, found.matches) == ("cat", ())


def test_part_of_a_token_shows_the_nearest_and_offers_the_others(session):
    state = state_of(session, token="a")
    found = answers.line(tiny_model(), state, report())
    assert found.token == "a"
    assert {"cat", "sat", "mat", "and", "saw", "ran"} == set(found.matches)
    assert '"title": "saw"' in said(views.line(found, state))
    with pytest.raises(PromptError, match="zebra"):
        answers.line(tiny_model(), state_of(session, token="zebra"), report())


def test_a_block_holds_each_token_of_the_text_once(session):
    model = tiny_model()
    found = answers.block(model, state_of(session, prompt="the cat the mat"), report())
    assert found.tokens == ("the", "cat", "mat")
    expected = ov_circuit(effective_weights(model), Head(0, 0)).block([0, 1, 5], [0, 1, 5])
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    table = found.table().set_index(["source", "out"])["value"]
    assert table["cat", "mat"] == pytest.approx(float(expected[1, 2]))


def test_a_virtual_head_is_the_librarys(session):
    model = tiny_model()
    _, circuit = answers.chosen_circuit(model, state_of(session, **VIRTUAL))
    weights = effective_weights(model)
    expected = qk_circuit(weights, virtual_head(weights, Head(1, 0), Head(0, 1), through="K"))
    assert circuit.label == expected.label == "1.0∘0.1 (K)"
    np.testing.assert_array_equal(circuit.row(3), expected.row(3))
    assert views.label(state_of(session, **VIRTUAL)) == "1.0∘0.1 (K)"


def test_embeddings_are_over_their_own_norm_unless_raw_ones_are_asked_for(build, session):
    model = build(norm="RMS")
    raw, own = (state_of(session, embedding=name) for name in ("raw", "normalised"))
    weights = effective_weights(model)
    np.testing.assert_allclose(
        answers.chosen_circuit(model, raw)[1].row(3), ov_circuit(weights, Head(0, 0)).row(3)
    )
    scale = float(weights.W_E[3].square().mean() + model.cfg.eps) ** 0.5
    np.testing.assert_allclose(
        scale * answers.chosen_circuit(model, own)[1].row(3),
        ov_circuit(weights, Head(0, 0)).row(3),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("given", [{"head": "0.7"}, {"head": "0.0", "earlier": "1.0"}], ids=str)
def test_heads_that_there_are_not_are_refused_by_name(session, given):
    with pytest.raises(SiteError, match=given["head"]):
        answers.entries(tiny_model(), state_of(session, **given), report())


def test_skip_trigrams_take_the_tokens_that_are_given(session):
    state = state_of(session, source="cat", out="#2")
    found = trigram_answers.trigrams(tiny_model(), state, report())
    assert set(found.listed.source) == {1}
    assert set(found.listed.out) == {2}
    assert set(found.table()["kind"]) <= {"listed", "implied"}


def test_the_offset_counts_with_rotary_positions_only(build, session):
    state = state_of(session, circuit="QK", offset="3")
    rotary, table = build(positions="rotary"), build(positions="learned")
    assert answers.chosen_circuit(rotary, state)[1].offset == 3
    assert answers.chosen_circuit(table, state)[1].offset is None
    for model, is_there in ((rotary, True), (table, False)):
        found = answers.offsets(model, state, report())
        assert (views.OFFSET_MARK in said(views.offsets(found, state))) is is_there


def test_an_encoder_is_refused_with_its_reason_where_its_geometry_is_shown(build, session):
    encoder = build(norm="LN", norm_position="post", causal=False)
    state = state_of(session)
    for compute in (answers.eigenvalues, answers.entries, answers.line, answers.copying):
        with pytest.raises(UnsupportedError, match="post-norm"):
            compute(encoder, state, report())
    assert views.geometry(answers.geometry(encoder, state, report()), state)


@pytest.fixture(scope="module")
def many_heads():
    """Composition of a model with more heads than are shown one by one."""
    weights = effective_weights(tiny_model(order="s" * 25))
    return composition_scores(weights, n_null=4)


def test_many_heads_are_shown_by_layer_with_their_strongest_pair(many_heads, session):
    state = state_of(session, composition)
    figure = composition_views.maps(many_heads, state)[1].children.figure
    drawn = {trace.name: trace for trace in figure.data}
    assert drawn["K"].x[0] == "1"
    for name in ("Q", "K", "V"):
        excess = many_heads.excess[name]
        for writer, reader in ((0, 1), (3, 20), (23, 24)):
            heads = excess[2 * writer : 2 * writer + 2, 2 * reader : 2 * reader + 2]
            assert drawn[name].z[writer, reader - 1] == np.float32(heads.max())
    assert np.isnan(drawn["K"].z[5, 4])


def test_two_layers_are_shown_larger(many_heads, session):
    state = state_of(session, composition, zoom="3-20")
    figure = composition_views.maps(many_heads, state)[-1].children.figure
    assert figure.data[0].y == ("3.0", "3.1")
    assert figure.data[0].x == ("20.0", "20.1")
    np.testing.assert_array_equal(
        figure.data[1].z, many_heads.excess["K"][6:8, 40:42].astype(np.float32)
    )
    backwards = state_of(session, composition, zoom="20-3")
    assert "No heads of layer 20 write" in said(composition_views.maps(many_heads, backwards)[-1:])


@pytest.mark.parametrize("threshold", [1.0, 1.5, 9.0])
def test_edges_are_the_pairs_above_the_threshold(many_heads, session, threshold):
    state = state_of(session, composition, threshold=str(threshold), inputs="V")
    statement, drawn = composition_views.pair_graph(many_heads, state)
    table = many_heads.table().query("through == 'V'")
    n_above = int((table["score"] >= threshold * table["chance"]).sum())
    assert statement.children.startswith(f"{n_above:,} of {len(table):,} pairs")
    middles = next(t for t in drawn.children.figure.data if t.name == "through V")
    assert len(middles.x) == min(n_above, composition_views.MAX_EDGES)


def test_a_chosen_pair_links_to_its_virtual_head_through_each_input(session):
    state = state_of(session, composition, head="1.0", earlier="0.1")
    found = composition_answers.composition(tiny_model(), state, report())
    text = said(composition_views.chosen_pair(found, state))
    for through, circuit in (("K", "QK"), ("Q", "QK"), ("V", "OV")):
        query = f"head=1.0&earlier=0.1&through={through}&circuit={circuit}"
        assert query in text
        assert f"{found.scores[through][1, 2]:.3f}" in text
    wrong = state_of(session, composition, head="0.0", earlier="1.0")
    assert "not in an earlier layer" in said(composition_views.chosen_pair(found, wrong))


def test_the_pattern_of_a_pair_is_that_of_the_virtual_head(session):
    model = tiny_model()
    state = state_of(session, composition, head="1.0", earlier="0.1", prompt="the cat sat")
    found = composition_answers.pattern(model, state, report())
    run = workbench.run(model, "the cat sat")
    np.testing.assert_allclose(
        found.values, virtual_pattern(run, Head(1, 0), Head(0, 1)), rtol=1e-6
    )
    np.testing.assert_allclose(found.values.sum(1), 1, rtol=1e-5)
    assert found.table()["query_token"].iloc[-1] == "sat"


def test_a_question_does_not_depend_on_what_only_changes_the_drawing(session):
    first, other = (state_of(session, composition, value=value) for value in ("z", "score"))
    questions: set[Question] = {
        panel.question(state).key
        for state in (first, other)
        for panel in composition.PANELS
        if panel.analysis == "composition"
    }
    assert len(questions) == 1
