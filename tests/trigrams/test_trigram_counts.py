"""Counts equal a slow loop, hidden sources lose their attention, and a planted head helps where it should."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.conftest import letters
from tests.models.tiny import TINY, tiny_hf
from tests.trigram_models import planted
from workbench import load
from workbench.errors import ConfigError, PromptError, SiteError, UnsupportedError
from workbench.models.bridge import BridgeModel
from workbench.models.families import bridge_config
from workbench.sites import Head
from workbench.training.held_out import held_out_text
from workbench.trigrams.contexts import PADDING, contexts
from workbench.trigrams.counts import occurrences
from workbench.trigrams.effects import Place, hiding_effects
from workbench.trigrams.listing import SkipTrigrams, bugs, skip_trigrams
from workbench.weights import effective_weights

HEAD = Head(0, 0)
CAUSAL = [name for name in TINY if not name.startswith("bert")]


def listed(model, triples, label="0.0"):
    """A list of chosen trigrams, scores left at zero."""
    columns = np.array(triples, dtype=int).reshape(-1, 3).T
    nothing = np.zeros(len(triples), np.float32)
    texts = {token: f"<{token}>" for token in columns.ravel().tolist()}
    return SkipTrigrams(
        label, model.name, None, *columns, nothing, nothing, "score", "logits", texts
    )


def slow_counts(rows, triple):
    """n, n_followed, n_destination and n_out by three loops."""
    source, destination, out = triple
    n = n_followed = n_destination = n_out = 0
    for row in rows:
        row = [token for token in row if token != PADDING]
        for i in range(len(row) - 1):
            if row[i] != destination:
                continue
            n_destination += 1
            n_out += row[i + 1] == out
            for j in range(i):
                if row[j] == source:
                    n += 1
                    n_followed += row[i + 1] == out
                    break
    return n, n_followed, n_destination, n_out


def assert_counts(model, rows, triples, tokens):
    table = occurrences(model, listed(model, triples), tokens=tokens, n_measured=0).table()
    for triple, row in zip(triples, table.itertuples(), strict=True):
        n, n_followed, n_destination, n_out = slow_counts(rows, triple)
        assert (row.n, row.n_followed, row.n_destination) == (n, n_followed, n_destination)
        if n_destination:
            assert row.chance == pytest.approx(n_out / n_destination)
        assert math.isnan(row.rate) if n == 0 else row.rate == pytest.approx(n_followed / n)
        assert n == 0 or row.low <= row.rate <= row.high


@pytest.fixture(scope="module")
def keeper():
    return planted(letters(), [("a", "b", "c"), ("k", "id", "mb")])


@given(
    text=st.lists(st.integers(0, 5), min_size=2, max_size=70),
    triples=st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_counts_equal_a_slow_loop(keeper, text, triples):
    rows = contexts(keeper, text)
    assert [token for row in rows for token in row[1:] if token != PADDING] == text
    assert_counts(keeper, rows.tolist(), triples, text)


def test_rows_are_contexts_as_they_are(keeper):
    rows = [[2, 3, 4, 2], [4, 3, 2, 2]]
    assert_counts(keeper, rows, [(2, 3, 4), (2, 2, 2), (4, 3, 2), (3, 2, 2)], torch.tensor(rows))


def test_counts_of_the_bundled_text_equal_a_slow_loop():
    model = load("attn-1l")
    found = skip_trigrams(effective_weights(model), Head(0, 4), k=2, source=" try", out=" except")
    text = held_out_text()[:120_000]
    assert_counts(model, contexts(model, text).tolist(), found.triples, text)


def test_every_context_that_has_the_source_is_followed_by_something(keeper):
    """Over all outs, what follows adds up to the contexts; and what precedes everything changes no rate."""
    text = np.random.default_rng(0).integers(2, 18, 4000)
    table = occurrences(
        keeper, listed(keeper, [(5, 7, out) for out in range(18)]), tokens=text
    ).table()
    assert table["n_followed"].sum() == table["n"].iloc[0]
    assert table["chance"].sum() == pytest.approx(1)
    first = occurrences(keeper, listed(keeper, [(0, 7, 9)]), tokens=text, n_measured=0).table()
    assert first["n"].iloc[0] == first["n_destination"].iloc[0]
    assert first["rate"].iloc[0] == first["chance"].iloc[0]


def test_on_random_text_intervals_hold_the_chance_level(keeper):
    text = np.random.default_rng(1).integers(2, 18, 40_000)
    triples = [(a, b, c) for a in (2, 3) for b in range(4, 9) for c in range(4, 14)]
    table = occurrences(keeper, listed(keeper, triples), tokens=text, n_measured=0).table()
    inside = (table["low"] <= 1 / 16) & (table["high"] >= 1 / 16)
    assert 0.88 <= inside.mean() <= 1.0


def repeated(*pieces):
    return "".join(pieces) * 40


def test_a_planted_head_helps_where_its_trigram_is_true_and_hurts_where_it_is_a_bug(keeper):
    weights = effective_weights(keeper)
    found = skip_trigrams(weights, HEAD, per_source=9)
    # k … i is always followed by m, never by b: what the pair k … d → b implies is a bug.
    seen = occurrences(keeper, found, tokens=repeated("kpimpdp", "anbc"))
    table = seen.table().set_index(["source", "destination", "out"])
    true, bug, absent = (table.loc[tuple(key)] for key in ("abc", "kib", "kdb"))
    assert true["rate"] == 1 and true["gain_low"] > 1 and true["effect_low"] > 1
    assert bug["n_followed"] == 0 and bug["effect_low"] > 1 and bug["n"] > 0
    assert absent["n_followed"] == 0 and absent["gain_high"] < 0
    # Two keys k of ten keep attention near 1: e^8 against 8.
    assert true["attended"] > 0.98
    assert seen.share_unseen == 0 and seen.share_never_followed == pytest.approx(3 / 5)


def test_bugs_can_be_counted_too(keeper):
    whole = skip_trigrams(effective_weights(keeper), HEAD, source="k")
    fields = ("source", "destination", "out", "attention", "output")
    half = [index for index, (_, b, c) in enumerate(whole.triples) if (b == 10) == (c == 14)]
    pair = SkipTrigrams(**{**vars(whole), **{name: vars(whole)[name][half] for name in fields}})
    table = occurrences(keeper, bugs(pair), tokens=repeated("kpimpd")).table()
    assert len(table) == 2 and {"destination_from", "n", "effect"} <= set(table.columns)


def test_effects_equal_a_softmax_by_hand(keeper):
    prefix = letters().encode("aponab")
    source, destination = prefix[1], prefix[-1]
    scores = np.array([8.0 if token == source else 0.0 for token in prefix[:-1]] + [0.0])
    hidden = np.where(scores > 0, -np.inf, scores)

    def log_probs(scores):
        pattern = np.exp(scores) / np.exp(scores).sum()
        on_source = pattern[np.array(prefix) == source].sum()
        logits = np.zeros(18)
        logits[4] = 8.0 * on_source  # c
        return logits - np.log(np.exp(logits).sum()), on_source

    place = Place(np.array(prefix), source, (4, 9))
    (found,) = hiding_effects(keeper, HEAD, [place])
    intact, on_source = log_probs(scores)
    without, nothing = log_probs(hidden)
    assert destination == 3 and nothing == 0
    assert_close(found.effects, (intact - without)[[4, 9]], atol=1e-5, rtol=1e-5)
    assert found.attended == pytest.approx(on_source, abs=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_hidden_source_has_no_attention_left_on_every_architecture(name):
    hf = tiny_hf(name)
    model = BridgeModel(hf, bridge_config(hf.config), None, name=name)
    head, row = Head(1, 2), [5, 9, 5, 11, 3, 9, 7]
    patterns = []
    hook = f"blocks.{head.layer}.attn.hook_pattern"

    def keep(pattern, hook):
        patterns.append(pattern.detach().clone())

    with model.hooks(fwd_hooks=[(hook, keep)]):
        (found,) = hiding_effects(model, head, [Place(np.array(row), 9, (2,))])
    intact, hidden = (pattern[0, head.head, -1] for pattern in patterns)
    keys = torch.tensor([token == 9 for token in row])
    assert hidden[keys].abs().max() == 0 and intact[keys].min() > 0
    assert_close(hidden[~keys], intact[~keys] / intact[~keys].sum(), atol=1e-5, rtol=1e-4)
    assert_close(patterns[0][:, :, :-1], patterns[1][:, :, :-1])
    assert found.attended == pytest.approx(float(intact[keys].sum()), abs=1e-6)
    assert found.effects[0] != 0


def test_hiding_what_a_head_does_not_move_changes_nothing(keeper):
    text = repeated("kpimpd")
    table = occurrences(keeper, listed(keeper, [(12, 10, 14)], "0.1"), tokens=text).table()
    assert table["effect"].iloc[0] == table["gain"].iloc[0] == 0
    assert table["attended"].iloc[0] > 0


def test_a_destination_does_not_hide_itself(keeper):
    """Of k k, the second sees the first one only as its source."""
    row = np.array(letters().encode("pkpk"))
    (found,) = hiding_effects(keeper, HEAD, [Place(row, 12, (4,))])
    assert found.attended == pytest.approx(1 / 5)


def test_places_are_drawn_by_the_seed_and_do_not_depend_on_the_rest_of_the_list(build):
    model = build(order="ss", scale=2.0)
    text = np.random.default_rng(0).integers(2, 18, 2000)
    triples = [(5, 7, 9), (6, 8, 3), (5, 7, 4)]

    def measured(triples, **settings):
        return occurrences(
            model, listed(model, triples), tokens=text, n_measured=5, **settings
        ).table()

    whole, again, alone = measured(triples), measured(triples), measured(triples[2:])
    assert whole.equals(again)
    columns = ["effect", "effect_low", "gain", "attended"]
    np.testing.assert_allclose(whole[columns].iloc[2], alone[columns].iloc[0], rtol=1e-4, atol=1e-6)
    assert (whole["n_measured"] == 5).all()
    assert (measured(triples, seed=1)["effect"] != whole["effect"]).all()


def test_progress_counts_places(keeper):
    steps = []
    text = repeated("kpimpd")
    found = listed(keeper, [(12, 10, 14)])
    occurrences(
        keeper, found, tokens=text, n_measured=20, progress=lambda *step: steps.append(step)
    )
    assert steps[-1] == (20, 20) and len(steps) > 1


def test_what_never_occurs_has_no_rate_and_no_effect(keeper):
    seen = occurrences(keeper, listed(keeper, [(12, 10, 14)]), tokens="abcabc")
    row = seen.table().iloc[0]
    assert row["n"] == row["n_measured"] == 0
    assert row[["rate", "low", "chance", "effect", "gain", "attended"]].isna().all()
    assert seen.share_unseen == 1 and seen.n_tokens == 7


def test_an_empty_list_gives_an_empty_table(keeper):
    seen = occurrences(keeper, skip_trigrams(effective_weights(keeper), Head(0, 1)), tokens="abc")
    assert seen.table().empty and math.isnan(seen.share_unseen)


def test_contexts_begin_as_prompts_do_and_hold_the_whole_text():
    model = load("attn-1l")
    rows = contexts(model)
    assert rows.shape[1] == 256 and (rows[:, 0] == 0).all()
    ids = rows[:, 1:][rows[:, 1:] != PADDING]
    assert model.tokenizer.backend.decode(ids.tolist()) == held_out_text()
    assert contexts(model, ids[:20], context=11).shape == (2, 11)


@pytest.mark.parametrize("text", ["x" * 10**6, "\0\x1b[31m\u202e", "𝕏é∅", "\n" * 5000])
def test_hostile_text_is_cut_whole(text):
    model = load("attn-1l")
    rows = contexts(model, text)
    ids = rows[:, 1:][rows[:, 1:] != PADDING]
    assert model.tokenizer.backend.decode(ids.tolist()) == text


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        ("", PromptError, "no token"),
        ("a\ud800", PromptError, "valid Unicode at character 1"),
        ([], PromptError, "not empty"),
        ([3, 99], PromptError, "no token 99"),
        ([[3, 4], [5]], PromptError, "one length"),
        (torch.zeros(2, 25, dtype=torch.long), PromptError, "at most 24"),
        (torch.zeros(3), PromptError, "whole numbers"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(keeper, tokens, error, words):
    with pytest.raises(error, match=words):
        occurrences(keeper, listed(keeper, [(3, 4, 5)]), tokens=tokens)


def test_contexts_have_a_length_that_the_model_can_read(keeper):
    for context in (2, 25):
        with pytest.raises(ConfigError, match="3 to 24"):
            contexts(keeper, "abc", context)


def test_what_cannot_be_measured_is_refused_by_name(keeper, build):
    found = listed(keeper, [(3, 4, 5)])
    with pytest.raises(ConfigError, match="trigrams of planted cannot be measured in letters"):
        occurrences(build(), found, tokens="abc")
    for settings_ in ({"n_measured": -1}, {"seed": -1}):
        with pytest.raises(ConfigError, match="whole number from 0"):
            occurrences(keeper, found, tokens="abc", **settings_)
    with pytest.raises(UnsupportedError, match="virtual"):
        occurrences(keeper, listed(keeper, [(3, 4, 5)], "1.4∘0.3"), tokens="abc")
    virtual = listed(keeper, [(3, 4, 5)], "1.4∘0.3")
    assert occurrences(keeper, virtual, tokens="abc", n_measured=0).table()["n"].tolist() == [0]
    with pytest.raises(SiteError, match=r"planted has no head 0\.7"):
        occurrences(keeper, listed(keeper, [(3, 4, 5)], "0.7"), tokens="abc")
    both_ways = build(causal=False)
    with pytest.raises(UnsupportedError, match="letters sees what follows"):
        occurrences(both_ways, listed(both_ways, [(3, 4, 5)]), tokens="abc")
    numbers = build()
    numbers.tokenizer = None
    with pytest.raises(PromptError, match="no tokenizer"):
        occurrences(numbers, listed(numbers, [(3, 4, 5)]))
