"""An address may say anything: a page takes what can be meant, and says what cannot."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import fields
from app.fields import read_state

FIELDS = (
    fields.PROMPT,
    fields.head(),
    fields.choice("kind", ("OV", "QK")),
    fields.whole("pos", high=500, lasts="prompt"),
    fields.whole("offset", 0, low=-5, high=20),
    fields.number("least", 0.5, low=0, high=1),
    fields.text("token", lasts="model", limit=10),
)


def state_of(session, **given):
    return read_state(session, FIELDS, given)


def test_an_empty_address_means_the_defaults(session):
    state, info, complaints = state_of(session)
    assert complaints == []
    assert state == {
        **{"model": "attn-2l", "step": None, "prompt": info.example_prompts[0]},
        **{"head": "0.0", "kind": "OV", "pos": None, "offset": 0, "least": 0.5, "token": ""},
    }


def test_what_an_address_says_is_taken(session):
    query = {"model": "attn-2l", "step": "10", "prompt": "the\ncat", "head": "1.1", "kind": "QK"}
    query |= {"pos": "3", "offset": "-2", "least": "0.25", "token": " the"}
    state, _, complaints = state_of(session, **query)
    assert complaints == []
    assert state == {**query, "step": 10, "pos": 3, "offset": -2, "least": 0.25}


def test_a_state_reads_back_as_itself(session):
    state, _, _ = state_of(session, step="100", pos="2", prompt="")
    again, _, complaints = read_state(session, FIELDS, json.loads(json.dumps(state)))
    assert (again, complaints) == (state, [])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"model": "nothing"}, "no model 'nothing'"),
        ({"model": "minilm"}, "not available"),
        ({"model": "../../etc/passwd"}, "no model"),
        ({"model": ["attn-2l"]}, "no model"),
        ({"step": "11"}, "no checkpoint of step 11: it keeps 10, 100"),
        ({"step": "1e1"}, "not a whole number"),
        ({"step": "-1"}, "not between"),
        ({"model": "other", "step": "10"}, "it keeps none"),
        ({"head": "x"}, "no head 'x'"),
        ({"head": "99999.1"}, "no head"),
        ({"kind": "ov"}, "there are OV, QK"),
        ({"kind": {"a": 1}}, "no kind"),
        ({"pos": "501"}, "not between 0 and 500"),
        ({"pos": "1.5"}, "not a whole number"),
        ({"pos": float("inf")}, "not a whole number"),
        ({"pos": True}, "not a whole number"),
        ({"pos": "9" * 5000}, "not a whole number"),
        ({"least": "nan"}, "not between"),
        ({"least": "two"}, "not a number"),
        ({"token": "x" * 11}, "the dashboard takes 10"),
        ({"token": 5}, "must be text"),
        ({"prompt": "x" * 20_001}, "20,001 characters"),
    ],
)
def test_what_cannot_be_meant_falls_back_and_is_said(session, query, words):
    state, _, complaints = state_of(session, **query)
    defaults, _, _ = state_of(session)
    assert len(complaints) == 1
    assert words in complaints[0]
    assert len(complaints[0]) < 300
    field = next(iter(set(query) - {"model"}), "model")
    assert state[field] == defaults[field] or "model" in query


@given(
    st.dictionaries(
        st.sampled_from([*(one.name for one in FIELDS), "model", "step", "x"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=40),
            st.lists(st.integers(), max_size=3),
            st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        ),
    )
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_reading_never_fails_and_gives_plain_values(session, query):
    state, info, complaints = read_state(session, FIELDS, query)
    assert set(state) == {"model", "step", *(one.name for one in FIELDS)}
    assert info.available
    assert all(isinstance(complaint, str) for complaint in complaints)
    again, _, said = read_state(session, FIELDS, json.loads(json.dumps(state)))
    assert (again, said) == (state, [])


@pytest.mark.parametrize("junk", [None, 3, "text", ["a"], True])
def test_what_is_no_state_at_all_means_the_defaults(session, junk):
    state, _, complaints = read_state(session, FIELDS, junk)
    assert state == state_of(session)[0]
    assert complaints == ["the address could not be read"]
