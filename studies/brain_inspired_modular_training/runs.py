"""The networks of the study: trained where they are not yet, measured where that was not done yet.

<folder>/<experiment>-<variant>-<seed>/     as `workbench train` leaves it, report.json included

A folder that is finished is only measured, one that was begun goes on, and a report that is of the same network
is read. So the study can be stopped at any time and be run again.
"""

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from studies.brain_inspired_modular_training.encodings import encodings
from workbench.errors import WorkbenchError
from workbench.results import model_hash, read_table
from workbench.training.experiment_runs import make_task, train
from workbench.training.experiments import VARIANTS, Request
from workbench.training.folders import is_trained
from workbench.training.reports import N_SHUFFLES, REPORT_FILE, load_network

MEASURED_LAST = "loss without dead paths"
COLUMNS = {
    "test_loss": "task loss",
    "test_loss_pruned": "test_loss, pruned",
    "q": "Newman Q",
    "cut": "normalised cut",
    "wiring": "wiring length",
    "mean_length": "mean wire length",
    "cross_talk": "cross-talk",
    "q_pruned": "Newman Q, pruned",
    "cut_pruned": "normalised cut, pruned",
    "cross_talk_pruned": "cross-talk, pruned",
    "mean_length_pruned": "mean wire length, pruned",
    "components": "components",
    "live_units": "live units",
    "live_wires": "live wires",
    "loss_allowed": "loss rise allowed",
}
"""The study's columns, and the measures in a report that they hold."""
WITH_NULL = ("q", "cut", "q_pruned", "cut_pruned", "components")
SCORES = {"test_R2": "R²", "test_accuracy": "accuracy"}


@dataclass(frozen=True)
class Part:
    """One experiment as the study runs it: all five variants, from each of these seeds.

    Args:
        steps: None = as published.
        folder: of the data files, where the user has them.
    """

    name: str
    seeds: tuple[int, ...]
    steps: int | None = None
    folder: str | None = None

    def requests(self) -> list[Request]:
        """Every run, seed by seed."""
        return [
            Request(
                name=self.name, variant=variant, seed=seed, steps=self.steps, folder=self.folder
            )
            for seed in self.seeds
            for variant in VARIANTS
        ]


def folder_of(request: Request, runs: Path) -> Path:
    """Where a run lies."""
    return runs / f"{request.name}-{request.variant}-{request.model_seed}"


def measured(request: Request, runs: Path) -> pd.DataFrame:
    """The report of one run, which is trained first if need be."""
    out = folder_of(request, runs)
    found = _kept(request, out) if is_trained(out) else None
    if found is not None:
        return found
    done = train(request, out)
    assert done is not None
    return done.table()


def all_runs(
    parts: Iterable[Part],
    runs: Path,
    processes: int,
    said: Callable[[str], None],
    *,
    finished: bool = False,
) -> pd.DataFrame:
    """One row for each run, in the order of the parts; trained and measured by some processes at once.

    Args:
        finished: leave out what would have to be trained.

    Raises:
        WorkbenchError: nothing is finished.
    """
    requests = [request for part in parts for request in part.requests()]
    if finished:
        requests = [each for each in requests if is_trained(folder_of(each, runs))]
    if not requests:
        raise WorkbenchError(f"{runs} holds no finished run of this study: leave out --finished")
    # Started afresh: processes forked from one that has used torch can hang.
    context = multiprocessing.get_context("spawn")
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(processes, mp_context=context, **one_thread) as pool:
        # Seed by seed: whatever is stopped has whole seeds of every experiment.
        in_turn = sorted(requests, key=lambda request: request.model_seed)
        work = {pool.submit(partial(row_of, runs=runs), each): each for each in in_turn}
        rows = {}
        for done in as_completed(work):
            request = work[done]
            rows[request] = done.result()
            said(f"{len(rows)}/{len(requests)}  {folder_of(request, runs).name}")
    return pd.DataFrame([rows[request] for request in requests])


def row_of(request: Request, runs: Path) -> dict[str, object]:
    """One run as a row of numbers."""
    table = measured(request, runs).set_index("measure")
    values = table["value"]
    row: dict[str, object] = {
        "experiment": request.name,
        "variant": request.variant,
        "seed": request.model_seed,
        "steps": request.n_steps,
    }
    (score,) = (name for name in SCORES if name in values)
    row |= {"score": values[score], "score_pruned": values[f"{score}, pruned"]}
    row |= {name: values.get(measure, float("nan")) for name, measure in COLUMNS.items()}
    for name in WITH_NULL:
        for part in ("null_mean", "z", "percentile"):
            found = table[part].get(COLUMNS[name], float("nan"))
            row[f"{name}_{part.removeprefix('null_')}"] = found
    return row | _encodings(request, runs)


def _encodings(request: Request, runs: Path) -> dict[str, float]:
    chosen, model = request.experiment, load_network(folder_of(request, runs))
    model = model.double() if chosen.in_double else model
    return encodings(model.eval(), make_task(chosen, request.folder))


def _kept(request: Request, out: Path) -> pd.DataFrame | None:
    """The report in a folder, if it is of this network and this request and holds all that is asked for."""
    try:
        table, made_by = read_table(out / REPORT_FILE)
    except WorkbenchError:
        return None
    is_same = made_by.get("model_hash") == model_hash(load_network(out))
    is_asked = request.record().items() <= made_by.items()
    rows = table.set_index("measure")
    is_whole = MEASURED_LAST in rows.index and rows["n_null"]["Newman Q"] == N_SHUFFLES
    return table if is_same and is_asked and is_whole else None
