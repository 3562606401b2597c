"""The only door from pages to models: loads them, runs prompts, keeps results, and bounds all of it.

Models and results are kept in caches of limited size, keyed by what made them, so any key that left can be
made again from the address of the page. Work runs in threads that report progress; one lock for each model
(`model.lock`) keeps one visitor's hooks out of another's numbers.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from app.analyses import Analyses
from app.cache import ByteCache
from app.compute import left_out, n_heads, view_maps
from app.estimator import Estimator
from app.jobs import Jobs, Report
from app.report_desk import ReportDesk
from app.scores import Badges, Curve, badge_table, best_scores, notable_head
from app.state import View
from app.trainings import Trainings
from workbench import models
from workbench.attention import AttentionMaps
from workbench.errors import PromptError, UnknownModelError, UnsupportedError, WorkbenchError
from workbench.figures.attention_view.payload import encode_layer
from workbench.models import ModelInfo
from workbench.models.protocol import Model
from workbench.sites import Head

log = logging.getLogger("workbench.app")
Loader = Callable[..., Model]


@dataclass(frozen=True)
class Limits:
    """Memory that a session may take, in bytes."""

    models: int = 3_000_000_000
    views: int = 1_500_000_000
    one_view: int = 750_000_000
    encoded: int = 200_000_000
    answers: int = 600_000_000


@dataclass(frozen=True)
class Shown:
    """A computed view and the facts that the page states beside it.

    Args:
        n_prompt: tokens of the (longest) prompt, of which the maps may show fewer.
        note: why they show fewer.
    """

    view: View
    maps: AttentionMaps
    n_tokens: int
    n_ctx: int
    shape: str
    certificate: str
    seconds: float
    n_prompt: int = 0
    note: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the maps."""
        return sum(layer.nbytes for layer in self.maps.layers if layer is not None)


@dataclass(frozen=True)
class Status:
    """How far a view is: shown, failed with an error, or still working on what `message` says."""

    key: str
    shown: Shown | None = None
    error: str = ""
    is_prompt_error: bool = False
    message: str = ""
    seconds: float = 0.0


class Session:
    """Models and results of one running dashboard, shared by all its visitors; `analyses` answers for pages.

    Args:
        load: as `workbench.models.load`.
        list_models: as `workbench.models.list_models`; no other name can be asked for.
        read_card: as `workbench.models.read_card`.
        runs: what is trained here; what it offers as models is listed after the others.
        reports: what probes found, folder by folder.
    """

    def __init__(
        self,
        *,
        load: Loader | None = None,
        list_models: Callable[[], list[ModelInfo]] = models.list_models,
        read_card: Callable[[str], dict[str, Any]] = models.read_card,
        limits: Limits | None = None,
        runs: Trainings | None = None,
        reports: ReportDesk | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._load: Loader = load or models.load
        self._list_models, self._read_card = list_models, read_card
        self._models: ByteCache[Model] = ByteCache(self.limits.models, _model_bytes, keep=1)
        self._views: ByteCache[Shown] = ByteCache(self.limits.views, lambda shown: shown.nbytes)
        self._badges: ByteCache[Badges] = ByteCache(16 << 20, lambda found: 1024 * (1 + len(found)))
        self._encoded: ByteCache[bytes] = ByteCache(self.limits.encoded, len)
        self._curves: ByteCache[Curve] = ByteCache(16 << 20, lambda curve: 4096)
        self._loading: dict[tuple[str, int | None], threading.Lock] = {}
        self._guard = threading.Lock()
        self._jobs = Jobs("view")
        self.analyses = Analyses(self.model, self.limits.answers)
        self.runs = runs or Trainings(None)
        self.reports = reports or ReportDesk(None)
        # Of networks of any kind, at any snapshot; what other pages ask is of whole models.
        self.estimator = Estimator()
        self.trained = Analyses(self.runs.load, self.limits.answers // 4)  # type: ignore[arg-type]
        self._background = Jobs("scores", workers=1)

    def models(self, shown: ModelInfo | None = None) -> list[ModelInfo]:
        """The models that can be chosen, and one that is shown: it may be weights of a run that goes on."""
        found = [*self._list_models(), *self.runs.models()]
        return found if shown is None or shown in found else [*found, shown]

    def info(self, name: str) -> ModelInfo:
        """What is known of a model before it is loaded.

        Raises:
            UnknownModelError: no model of that name; a path or hub id is never one here.
        """
        known = {info.name: info for info in self.models()}
        found = known.get(name) or self.runs.weights(name)
        if found is None:
            raise UnknownModelError(f"no model {name[:60]!r}: there are {', '.join(known)}")
        return found

    def model(self, name: str, step: int | None = None, report: Report | None = None) -> Model:
        """A loaded model, from memory if it is still there; two callers never load it twice.

        Raises:
            UnknownModelError: no such model, or its package is not installed.
            UnsupportedError: it kept no checkpoint of that step.
        """
        info = self.info(name)
        if not info.available:
            raise UnknownModelError(f"{name} is not available here: {info.summary}")
        if step is not None and step not in info.steps:
            kept = ", ".join(map(str, info.steps)) or "none"
            raise UnsupportedError(f"{name} has no checkpoint of step {step}: it keeps {kept}")
        key = (name, step)
        with self._guard:
            lock = self._loading.setdefault(key, threading.Lock())
        told = report or (lambda line: None)
        while not lock.acquire(timeout=0.2):
            told(f"Loading {name}")  # a place to be cancelled, while another loads it
        try:
            model = self._models.get(key)
            if model is None:
                model = self._load(name, step=step, progress=told)
                self._models.put(key, model)
        finally:
            lock.release()
        return model

    def first_head(self, name: str) -> Head | None:
        """The head to show before anyone has chosen one, by the model's card."""
        try:
            return notable_head(self._read_card(name))
        except WorkbenchError:
            return None

    def request(self, view: View, *, wait: float = 0.0, is_poll: bool = False) -> Status:
        """Start a view, or join its computation (as of `Jobs.start`); waits so many seconds for the result."""
        shown = self._views.get(view.key)
        if shown is not None:
            return Status(view.key, shown)
        try:
            job = self._jobs.start(
                view.key, lambda report: self._compute(view, report), is_poll=is_poll
            )
            return Status(view.key, job.future.result(timeout=wait))
        except FutureTimeout:
            return Status(view.key, message=job.message, seconds=job.seconds)
        except WorkbenchError as error:
            return Status(
                view.key, error=str(error), is_prompt_error=isinstance(error, PromptError)
            )
        except Exception as error:
            return Status(view.key, error=f"{type(error).__name__}; the server's log says more")

    def shown(self, key: str) -> Shown | None:
        """A computed view, unless it has left the cache."""
        return self._views.get(key)

    def encoded(self, shown: Shown, layer: int) -> bytes:
        """One layer as the viewer reads it, gzip-compressed.

        Raises:
            SiteError: no such layer, or one without attention.
        """
        key = (shown.view.key, layer)
        content = self._encoded.get(key)
        if content is None:
            content = encode_layer(shown.maps, layer)
            self._encoded.put(key, content)
        return content

    def known_badges(self, view: View) -> Badges | None:
        """The badges of a view's model, if they have been measured; starts nothing."""
        return self._badges.get((view.model, view.step))

    def badges(self, view: View) -> Badges | None:
        """What the heads of a view's model do, by label; None while it is being measured."""
        key = (view.model, view.step)
        found = self._badges.get(key)
        if found is None:
            self._background.start(key, lambda report: self._score(view.model, view.step))
        return found

    def curve(self, name: str) -> Curve | None:
        """How far behaviours have formed at each checkpoint and at the end; None while being measured."""
        found = self._curves.get(name)
        if found is None:
            self._background.start(("curve", name), lambda report: self._measure_curve(name))
        return found

    def close(self, *, wait: float = 0.0) -> bool:
        """Start no more work, and wait so many seconds for what runs; whether all of it has ended."""
        workers = (self._jobs, self._background, self.analyses, self.trained)
        for worker in workers:
            worker.close()
        self.estimator.close()
        until = time.monotonic() + wait
        while not (idle := all(worker.is_idle for worker in workers)):
            if time.monotonic() >= until:
                break
            time.sleep(0.02)
        return idle

    def _compute(self, view: View, report: Report) -> Shown:
        report(f"Loading {view.model}")
        model = self.model(view.model, view.step, report)
        began = time.perf_counter()
        maps = view_maps(
            view,
            lambda step: self.model(view.model, step, report),
            self.limits.one_view,
            report,
        )
        n_prompt, note = left_out(view, model, len(maps.query_tokens))
        shown = Shown(
            view=view,
            maps=maps,
            n_tokens=len(maps.query_tokens),
            n_ctx=int(model.cfg.n_ctx),
            shape=_shape(model),
            certificate=str(model.certificate or ""),
            seconds=time.perf_counter() - began,
            n_prompt=n_prompt,
            note=note,
        )
        self._views.put(view.key, shown)
        return shown

    def _score(self, name: str, step: int | None) -> None:
        # An empty result is kept too: a model that cannot be scored is not tried at every look.
        found: Badges = {}
        try:
            found = badge_table(self.model(name, step))
        except UnsupportedError:
            log.info("no head scores of %s", name)
        finally:
            self._badges.put((name, step), found)

    def _measure_curve(self, name: str) -> None:
        curve: Curve = {}
        try:
            # Loaded past the cache: a walk through all checkpoints must not push out what is in use.
            steps = [*self.info(name).steps, None]
            found = [best_scores(self._load(name, step=step, progress=None)) for step in steps]
            curve = {behaviour: [scores[behaviour] for scores in found] for behaviour in found[0]}
        except UnsupportedError:
            log.info("no training curve of %s", name)
        finally:
            self._curves.put(name, curve)


def _model_bytes(model: Any) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def _shape(model: Model) -> str:
    cfg = model.cfg
    counts = {model.n_heads_in(layer) for layer in range(cfg.n_layers)}
    heads = f"{counts.pop()} heads" if len(counts) == 1 else f"{n_heads(model)} heads in all"
    layers = f"{cfg.n_layers} layer{'s' if cfg.n_layers != 1 else ''}"
    return f"{layers} × {heads}, d_model {cfg.d_model}"
