"""Questions are computed once, kept within bounds, and stopped when nobody wants them any more."""

import gc
import threading
import time
import weakref
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from app.analyses import WORKERS, Analyses, Question, result_bytes
from app.cache import ByteCache
from app.jobs import Cancelled, Jobs
from workbench.errors import BudgetError, UnsupportedError

ASK = Question("test", "tiny", None, {"k": 3})


@pytest.fixture
def analyses():
    made = Analyses(lambda name, step, report: name, limit=100_000, patience=60)
    yield made
    made.close()


def settled(analyses, question, compute, seconds=10):
    """The answer once nothing works on it any more."""
    until = time.monotonic() + seconds
    while (answer := analyses.ask(question, compute, wait=0.02)).is_working:
        assert time.monotonic() < until
    return answer


def test_an_equal_question_is_computed_once_and_has_an_equal_key(analyses):
    calls = []

    def compute(model, asked, report):
        calls.append(dict(asked))
        return pd.DataFrame({"value": [1.0, 2.0]})

    first = settled(analyses, ASK, compute)
    again = settled(analyses, Question("test", "tiny", None, {"k": 3}), compute)
    assert again.kept is first.kept
    assert calls == [{"k": 3}]
    assert analyses.find(first.key).table()["value"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "other",
    [
        Question("other", "tiny", None, {"k": 3}),
        Question("test", "large", None, {"k": 3}),
        Question("test", "tiny", 0, {"k": 3}),
        Question("test", "tiny", None, {"k": 4}),
        Question("test", "tiny", None, {"k": "3"}),
    ],
)
def test_another_question_has_another_key(other):
    assert other.key != ASK.key


def test_the_order_of_arguments_does_not_matter_and_any_text_has_a_key():
    one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert Question("t", "m", None, one).key == Question("t", "m", None, two).key
    assert len(Question("t", "\ud800", None, {"x": "\0é"}).key) == 32


def test_progress_is_told_with_its_fraction(analyses):
    seen, go = threading.Event(), threading.Event()

    def compute(model, asked, report):
        report.counting("Counting heads")(3, 12)
        seen.set()
        assert go.wait(10)
        return 1

    analyses.ask(ASK, compute)
    assert seen.wait(10)
    answer = analyses.ask(ASK, compute)
    assert (answer.message, answer.fraction, answer.is_working) == ("Counting heads", 0.25, True)
    go.set()
    assert settled(analyses, ASK, compute).kept.result == 1


def endless(started, ended):
    def compute(model, asked, report):
        started.set()
        try:
            while True:
                report("Working", 0.5)
                time.sleep(0.005)
        except Cancelled:
            ended.set()
            raise

    return compute


def test_a_cancelled_computation_ends_where_it_next_reports(analyses):
    started, ended = threading.Event(), threading.Event()
    compute = endless(started, ended)
    key = analyses.ask(ASK, compute).key
    assert started.wait(10)
    assert analyses.cancel(key)
    assert ended.wait(10)
    assert analyses.find(key) is None
    assert not analyses.cancel(key)
    # Asked again, it begins anew.
    assert settled(analyses, ASK, lambda model, asked, report: "new").kept.result == "new"


def test_who_waits_for_a_cancelled_computation_is_told(analyses):
    started, go = threading.Event(), threading.Event()

    def compute(model, asked, report):
        started.set()
        go.wait(10)
        report("never said")

    answers = []
    waiting = threading.Thread(target=lambda: answers.append(analyses.ask(ASK, compute, wait=10)))
    waiting.start()
    assert started.wait(10)
    analyses.cancel(ASK.key)
    go.set()
    waiting.join()
    assert answers[0].is_cancelled
    assert not answers[0].is_working


def test_a_computation_that_waits_for_a_thread_can_be_cancelled(analyses):
    started, ended = threading.Event(), threading.Event()
    busy = [Question("busy", "tiny", None, {"i": i}) for i in range(WORKERS)]
    for question in busy:
        analyses.ask(question, endless(started, ended))
    key = analyses.ask(ASK, lambda model, asked, report: 1).key
    assert analyses.cancel(key)
    assert analyses.find(key) is None
    for question in busy:
        analyses.cancel(question.key)
    assert settled(analyses, ASK, lambda model, asked, report: 2).kept.result == 2


def test_a_computation_whose_visitor_left_ends_and_frees_its_thread():
    analyses = Analyses(lambda name, step, report: name, limit=100_000, patience=60)
    ends = []
    for index in range(WORKERS):
        question = Question("left", "tiny", None, {"i": index})
        started, ended = threading.Event(), threading.Event()
        key = analyses.ask(question, endless(started, ended)).key
        assert started.wait(10)
        analyses._jobs.find(key).asked -= 2 * 60
        ends.append(ended)
    # All threads were taken; the question is asked until one of them is free.
    assert settled(analyses, ASK, lambda model, asked, report: 3).kept is not None
    assert all(ended.wait(10) for ended in ends)
    analyses.close()


def test_a_computation_that_is_asked_for_goes_on(analyses):
    go = threading.Event()

    def compute(model, asked, report):
        assert go.wait(10)
        report("Working")
        return "done"

    key = analyses.ask(ASK, compute).key
    job = analyses._jobs.find(key)
    job.asked -= 2 * job.patience
    assert job.is_unwanted
    analyses.ask(ASK, compute)
    assert not job.is_unwanted
    go.set()
    assert settled(analyses, ASK, compute).kept.result == "done"


def test_a_job_that_was_left_ends_unless_another_still_asks(monkeypatch):
    monkeypatch.setattr("app.jobs.GRACE_SECONDS", 0.2)
    analyses = Analyses(lambda name, step, report: name, limit=100_000, patience=60)
    ended = {name: threading.Event() for name in ("left", "shared")}
    for name in ended:
        analyses.ask(Question(name, "tiny"), endless(threading.Event(), ended[name]), wait=0.05)
    for name in ended:
        analyses.leave(Question(name, "tiny").key)
    until = time.monotonic() + 10
    while not ended["left"].is_set():
        assert time.monotonic() < until
        assert analyses.ask(Question("shared", "tiny"), lambda *_: None, wait=0.01).is_working
    assert not ended["shared"].is_set()
    analyses.leave("no such key")
    analyses.close()


def test_what_waits_for_nobody_makes_room_for_others():
    jobs, go = Jobs("test", workers=1, waiting=1, patience=0.05), threading.Event()
    jobs.start("running", lambda report: go.wait(10))
    jobs.start("left", lambda report: None)
    with pytest.raises(BudgetError):
        jobs.start("new", lambda report: None)
    time.sleep(0.1)
    job = jobs.start("new", lambda report: "ran")
    go.set()
    assert job.future.result(10) == "ran"
    jobs.close()


def test_errors_are_told_and_tried_again(analyses, caplog):
    def refused(model, asked, report):
        raise UnsupportedError("no such thing here")

    def broken(model, asked, report):
        raise RuntimeError("secret path /root/x")

    assert settled(analyses, ASK, refused).error == "no such thing here"
    answer = settled(analyses, ASK, broken)
    assert "RuntimeError" in answer.error
    assert "secret" not in answer.error
    assert "secret" in caplog.text
    assert settled(analyses, ASK, lambda model, asked, report: 5).kept.result == 5


def test_who_polls_hears_how_it_ended_and_starts_nothing(analyses):
    calls = []

    def refused(model, asked, report):
        calls.append(1)
        raise UnsupportedError("no such thing here")

    analyses.ask(ASK, refused, wait=10)
    for _ in range(5):
        assert analyses.ask(ASK, refused, is_poll=True).error == "no such thing here"
    assert len(calls) == 1
    started, ended = threading.Event(), threading.Event()
    other = Question("other", "tiny")
    analyses.ask(other, endless(started, ended))
    analyses.cancel(other.key)
    until = time.monotonic() + 10
    while (answer := analyses.ask(other, endless(started, ended), is_poll=True)).is_working:
        assert time.monotonic() < until
    assert answer.is_cancelled


def test_only_the_cache_keeps_results_alive(analyses):
    class Result:
        pass

    answer = settled(analyses, ASK, lambda model, asked, report: Result())
    held = weakref.ref(answer.kept.result)
    del answer
    assert held() is not None
    analyses._kept = ByteCache(10, len)
    until = time.monotonic() + 10
    while held() is not None:
        assert time.monotonic() < until
        gc.collect()


def test_a_result_beyond_the_memory_is_refused():
    analyses = Analyses(lambda name, step, report: name, limit=10_000)
    answer = settled(analyses, ASK, lambda model, asked, report: np.zeros(10_000))
    assert "MiB" in answer.error
    analyses.close()


def test_the_bytes_of_a_result_are_those_of_its_arrays():
    @dataclass(frozen=True)
    class Result:
        array: np.ndarray
        tensors: tuple[torch.Tensor, ...]
        table: pd.DataFrame
        names: dict[str, str]

    zeros = np.zeros((10, 100), np.float32)
    result = Result(zeros, (torch.zeros(1000),), pd.DataFrame({"x": zeros[0]}), {"a": "b"})
    assert 8400 <= result_bytes(result) < 9200


def test_an_answer_may_build_on_another_which_is_computed_once(analyses):
    calls = []

    def base(model, asked, report):
        calls.append(asked["x"])
        time.sleep(0.1)
        return asked["x"] * 10

    def sum_of(model, asked, report):
        return report.other("base", {"x": 2}, base) + asked["k"]

    both = [Question("sum", "tiny", None, {"k": k}) for k in (1, 2)]
    for question in both:
        analyses.ask(question, sum_of)
    results = [settled(analyses, question, sum_of).kept.result for question in both]
    direct = settled(analyses, Question("base", "tiny", None, {"x": 2}), base)
    assert (results, direct.kept.result, calls) == ([21, 22], 20, [2])


def test_who_waits_for_anothers_answer_can_be_cancelled_and_an_error_reaches_everyone(analyses):
    go = threading.Event()

    def base(model, asked, report):
        go.wait(10)
        raise UnsupportedError("no base")

    def over(model, asked, report):
        return report.other("base", {}, base)

    base_question = Question("base", "tiny")
    analyses.ask(base_question, base, wait=0.1)
    analyses.ask(ASK, over, wait=0.1)
    assert analyses.cancel(ASK.key)
    assert settled(analyses, Question("test", "tiny", 5), lambda *_: 1).kept.result == 1
    go.set()
    assert settled(analyses, base_question, base).error == "no base"
    assert settled(analyses, ASK, over).error == "no base"
