"""Any computed thing that a page shows: asked for by what makes it, computed once, kept while there is room.

A question says which analysis of which model with which arguments; equal questions have equal keys, in every
process. Its answer comes at once from memory, or later from a job that reports its progress and can be
cancelled. Downloads are made from answers by key, never from what a visitor wrote.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import pandas as pd

from app.cache import ByteCache
from app.jobs import Cancelled, Jobs, Progress, Report
from workbench.errors import WorkbenchError
from workbench.models.protocol import Model

Compute = Callable[[Model, Mapping[str, Any], "Desk"], Any]
ModelAt = Callable[[str, int | None, Report], Model]
# A page that waits asks several times a second; in a hidden tab browsers let it ask once a minute.
PATIENCE_SECONDS = 150.0
# One more than most machines' users have cores for: a computation may wait for another one's answer.
WORKERS = 3


@dataclass(frozen=True)
class Question:
    """What is to be computed.

    Args:
        name: which analysis.
        step: training step of the weights; None is the finished model.
        arguments: plain values, whatever else the answer depends on.
    """

    name: str
    model: str
    step: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A hash of the question: 32 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Kept:
    """A result in memory, with the question that it answers and the seconds that it took."""

    question: Question
    result: Any
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return 1024 + result_bytes(self.result)

    def table(self) -> pd.DataFrame:
        """The result's tidy table, one row per observation.

        Raises:
            WorkbenchError: a result that is no table and has none.
        """
        if isinstance(self.result, pd.DataFrame):
            return self.result
        if not hasattr(self.result, "table"):
            raise WorkbenchError(f"{self.question.name} has no table")
        table: pd.DataFrame = self.result.table()
        return table


@dataclass(frozen=True)
class Answer:
    """How far a question is: kept, failed with an error, cancelled, or working on what `message` says."""

    key: str
    kept: Kept | None = None
    error: str = ""
    is_cancelled: bool = False
    message: str = ""
    fraction: float | None = None
    seconds: float = 0.0

    @property
    def is_working(self) -> bool:
        """Whether asking again can bring news."""
        return self.kept is None and not self.error and not self.is_cancelled


class Desk(Progress):
    """What a computation reports through, and where it may ask for another answer that it builds on.

    Args:
        find: gives the answer to a question about the same model, computed here if it is not kept.
    """

    def __init__(self, progress: Progress, find: Callable[[str, Mapping[str, Any], Compute], Any]):
        super().__init__(progress.job)
        self.other = find


class Analyses:
    """Answers of one running dashboard, shared by all its visitors and bounded in memory.

    Args:
        model_at: loads the model of a question, or takes it from memory.
        limit: most bytes that all results may take together.
        patience: seconds for which a job goes on although nobody asks for it.
    """

    def __init__(
        self, model_at: ModelAt, limit: int, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._model_at = model_at
        self._kept: ByteCache[Kept] = ByteCache(limit, lambda kept: kept.nbytes)
        self._jobs = Jobs("analysis", workers=WORKERS, waiting=32, patience=patience)
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def ask(
        self, question: Question, compute: Compute, *, wait: float = 0.0, is_poll: bool = False
    ) -> Answer:
        """The answer if it is kept; else starts or joins its computation and waits so many seconds for it.

        Args:
            is_poll: whether who asks has asked before, and wants to hear how it ended rather than start anew.
        """
        key = question.key
        if (kept := self._kept.get(key)) is not None:
            return Answer(key, kept)
        try:
            job = self._jobs.start(
                key, lambda report: self._compute(question, compute, report), is_poll=is_poll
            )
            return Answer(key, job.future.result(timeout=wait))
        except FutureTimeout:
            if job.is_cancelled:  # its thread ends where it next reports
                return Answer(key, is_cancelled=True)
            return Answer(key, message=job.message, fraction=job.fraction, seconds=job.seconds)
        except (Cancelled, CancelledError):
            return Answer(key, is_cancelled=True)
        except WorkbenchError as error:
            return Answer(key, error=str(error))
        except Exception as error:
            name = type(error).__name__
            return Answer(key, error=f"internal error ({name}): the server's log says more")

    def find(self, key: str) -> Kept | None:
        """A kept result, unless it has left the memory."""
        return self._kept.get(key)

    def cancel(self, key: str) -> bool:
        """Stop a computation where it next reports; whether it was under way."""
        return self._jobs.cancel(key)

    def leave(self, key: str) -> None:
        """One visitor waits no longer; the computation ends soon, unless another still asks for it."""
        self._jobs.leave(key)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being computed."""
        return self._jobs.is_idle

    def close(self) -> None:
        """Compute nothing more."""
        self._jobs.close()

    def _compute(self, question: Question, compute: Compute, report: Progress) -> Kept:
        report(f"Loading {question.model}")
        model = self._model_at(question.model, question.step, report)
        report("Computing")
        return self._answer(question, model, compute, report)

    def _answer(self, question: Question, model: Model, compute: Compute, report: Progress) -> Kept:
        """Compute in this thread, unless another has the answer or is about to have it."""

        def other(name: str, arguments: Mapping[str, Any], compute: Compute) -> Any:
            asked = replace(question, name=name, arguments=arguments)
            return self._answer(asked, model, compute, report).result

        with self._guard:
            lock = self._locks.setdefault(question.key, threading.Lock())
        while not lock.acquire(timeout=0.2):
            report("Waiting for another computation")
        try:
            if (kept := self._kept.get(question.key)) is not None:
                return kept
            began = time.perf_counter()
            result = compute(model, question.arguments, Desk(report, other))
            kept = Kept(question, result, time.perf_counter() - began)
            self._kept.put(question.key, kept)
            return kept
        finally:
            lock.release()


def result_bytes(value: Any) -> int:
    """Bytes of the arrays and tables in a result, however it nests them."""
    if isinstance(own := getattr(value, "nbytes", None), int):
        return own  # arrays, and results that know what they share with their model
    if isinstance(value, pd.DataFrame):
        return int(value.memory_usage(deep=True).sum())
    if is_dataclass(value):
        return sum(result_bytes(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, Mapping):
        return sum(64 + result_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(32 + result_bytes(item) for item in value)
    return len(value) if isinstance(value, str | bytes) else 32
