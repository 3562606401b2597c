"""An address is text that anyone may have written: reading it never fails and never guesses silently."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.state import KINDS, Selection, View, read_selection, read_view, to_query
from workbench.errors import PromptError
from workbench.sites import Head

# A small alphabet of trouble: building Hypothesis' table of all Unicode takes seconds.
TEXT = st.text("a0-. %&=+\n\0é١→\ud800", max_size=20)
ANY = st.one_of(st.none(), TEXT, st.integers(), st.booleans(), st.lists(TEXT))
PLAIN = st.text("a0 %&=+\né→", min_size=1, max_size=20)


@given(
    st.dictionaries(st.sampled_from(["model", "prompt", "other", "kind", "step", "before"]), ANY)
)
def test_reading_a_view_never_fails(given_values):
    view, complaints = read_view(given_values, View())
    assert view.kind in KINDS
    assert len(view.key) == 32
    assert all(isinstance(line, str) for line in complaints)


@given(st.dictionaries(st.sampled_from(["head", "pos", "locked"]), TEXT))
def test_reading_a_selection_never_fails(query):
    selection, _ = read_selection(query)
    assert selection.pos is None or selection.pos >= 0


@given(
    st.builds(
        View,
        model=PLAIN,
        prompt=PLAIN,
        kind=st.sampled_from(list(KINDS)),
        other=PLAIN,
        step=st.one_of(st.none(), st.integers(0, 10**6)),
        before=st.integers(0, 10**6),
    )
)
def test_a_view_survives_the_address(view):
    query = dict(parse_qsl(to_query(view), keep_blank_values=True))
    back, complaints = read_view(query, View())
    assert complaints == []
    assert back.key == view.key


def test_a_selection_survives_the_address():
    selection = Selection(Head(3, 11), True, 7)
    query = dict(parse_qsl(to_query(View(), selection)))
    assert read_selection(query) == (selection, [])


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"view": "nonsense"}, "nonsense"),
        ({"step": "-1"}, "-1"),
        ({"step": "9" * 30}, "training step"),
        ({"step": "１"}, "training step"),
        ({"before": "x"}, "before"),
    ],
)
def test_what_cannot_be_meant_is_named(query, word):
    view, complaints = read_view(query, View())
    assert view == View()
    assert len(complaints) == 1
    assert word in complaints[0]


def test_fields_that_a_kind_does_not_read_do_not_change_its_key():
    assert View(other="x", before=3).key == View().key
    assert View(kind="difference", other="x").key != View(kind="difference", other="y").key


def test_every_field_that_is_read_changes_the_key():
    keys = {View(model="m").key, View(prompt="p").key, View(kind="scores").key, View(step=1).key}
    assert len(keys | {View().key}) == 5


@pytest.mark.parametrize(
    "view",
    [
        View(prompt="a" * 20_001),
        View(kind="difference", other="a" * 20_001),
        View(kind="mean", prompt="\n".join("a" * 65)),
        View(kind="mean", prompt=" \n \n"),
    ],
)
def test_too_much_or_nothing_is_refused(view):
    with pytest.raises(PromptError):
        view.check()
