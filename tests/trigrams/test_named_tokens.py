"""Tokens are found by what is written in them; hostile text gets an answer or a refusal, never a crash."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import letters
from workbench import load
from workbench.errors import PromptError
from workbench.trigrams.named_tokens import find_tokens, named_token, spelled_tokens


@pytest.fixture(scope="module")
def attn_1l():
    return load("attn-1l")


def texts(model, ids):
    return model.tokenizer.str_tokens(ids)


def test_exact_tokens_come_first_then_those_differing_in_case_or_space(attn_1l):
    found = texts(attn_1l, find_tokens(attn_1l.tokenizer, "if"))
    assert found[:2] == ["if", " if"]
    assert all("if" in text.lower() for text in found)
    assert texts(attn_1l, find_tokens(attn_1l.tokenizer, " if"))[0] == " if"


def test_every_token_is_found_by_its_own_text_and_named_by_it(attn_1l):
    spelled = spelled_tokens(attn_1l, list(range(0, attn_1l.cfg.d_vocab, 17)))
    for token, text in spelled.items():
        assert find_tokens(attn_1l.tokenizer, text, 1) == [token]
        assert named_token(attn_1l, text) == named_token(attn_1l, token) == token


def test_the_search_finds_what_a_plain_loop_finds(attn_1l):
    every = texts(attn_1l, range(attn_1l.cfg.d_vocab))
    for text in ("re", "\n", "_", " S", "·re"):
        wanted = {text.lower(), text.replace("·", " ").lower()}
        expected = {i for i, one in enumerate(every) if any(w in one.lower() for w in wanted)}
        assert set(find_tokens(attn_1l.tokenizer, text, 10_000)) == expected


def test_signs_of_whitespace_can_be_typed(attn_1l):
    tokenizer = attn_1l.tokenizer
    assert find_tokens(tokenizer, "·for", 1) == find_tokens(tokenizer, " for", 1)
    assert named_token(attn_1l, "↵···") == named_token(attn_1l, "\n   ")


def test_a_token_that_holds_a_sign_itself_comes_before_what_the_sign_stands_for(monkeypatch):
    tokenizer = letters()
    texts = {0: " ", 1: "·", 2: "a·"}
    monkeypatch.setattr(tokenizer, "str_tokens", lambda ids: [texts.get(id, "x") for id in ids])
    assert find_tokens(tokenizer, "·") == [1, 0, 2]


def test_the_limit_holds(attn_1l):
    assert len(find_tokens(attn_1l.tokenizer, "e", 7)) == 7
    with pytest.raises(PromptError, match="not 0"):
        find_tokens(attn_1l.tokenizer, "e", 0)


def test_a_text_that_is_no_token_is_refused_with_the_nearest(attn_1l):
    with pytest.raises(PromptError, match=r"'excpt' is not one token of attn-1l.*' except'"):
        named_token(attn_1l, "excpt")


def test_special_tokens_have_their_names(attn_1l):
    assert named_token(attn_1l, "<|bos|>") == 0


@pytest.mark.parametrize("text", ["\0", "\x1b[31m", "x" * 10**6, "\u202e", "\ud800", "∅", "𝕏"])
def test_hostile_text_is_searched_and_refused_in_few_words(attn_1l, text):
    assert find_tokens(attn_1l.tokenizer, text) in ([], [find_byte(attn_1l, text)])
    try:
        named_token(attn_1l, text)
    except PromptError as error:
        assert len(str(error)) < 400 and str(error).isprintable()
    else:
        assert len(text) == 1


def find_byte(model, text):
    return next((i for i, t in enumerate(texts(model, range(1024))) if t == text), None)


def test_an_empty_text_is_refused(attn_1l):
    with pytest.raises(PromptError, match="at least one character"):
        find_tokens(attn_1l.tokenizer, "")
    with pytest.raises(PromptError, match="at least one character"):
        named_token(attn_1l, "")


def test_ids_outside_the_vocabulary_are_refused(attn_1l):
    for token in (-1, 1024, True):
        with pytest.raises(PromptError):
            named_token(attn_1l, token)


def test_a_text_that_two_tokens_share_is_refused_with_both(attn_1l, monkeypatch):
    tokenizer = letters()
    monkeypatch.setattr(tokenizer, "str_tokens", lambda ids: ["x" for _ in ids])
    monkeypatch.setattr(attn_1l, "tokenizer", tokenizer)
    with pytest.raises(PromptError, match="text of the tokens \\[0, 1, 2"):
        named_token(attn_1l, "x")


@given(st.text(min_size=1, max_size=8), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_found_tokens_contain_the_text_whatever_its_case(text, limit):
    tokenizer = letters()
    found = find_tokens(tokenizer, text, limit)
    assert len(found) == len(set(found)) <= limit
    every = tokenizer.str_tokens(range(tokenizer.d_vocab))
    assert all(text.casefold() in every[token].casefold() for token in found)
