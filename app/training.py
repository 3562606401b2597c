"""What `workbench train` does: a bundled model anew, an experiment in modular training, or a plan."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.terminal import plain_table, show
from workbench.errors import ConfigError, WorkbenchError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.training.plan import Plan

STOPPED = 130


@dataclass(frozen=True)
class Wanted:
    """What `workbench train` was given.

    Args:
        data: folder of the data, for a recipe or a plan that reads files of the user's.
    """

    name: str
    out: Path | None = None
    seed: int | None = None
    max_steps: int | None = None
    variant: str | None = None
    data: Path | None = None


def train(wanted: Wanted) -> None:
    """Train by name; progress and results are printed.

    Raises:
        ConfigError: a variant of something that has none, or data for something that reads none.
    """
    from workbench.training.experiments import PREFIX

    if wanted.name.startswith(PREFIX):
        _train_experiment(wanted)
        return
    if wanted.variant is not None:
        raise ConfigError(f"{wanted.name[:40]!r} has no variants: those named {PREFIX}… have")
    if wanted.data is not None:
        raise ConfigError(f"{wanted.name[:40]!r} reads no files of yours: leave --data out")
    from workbench.training.recipes import train as train_recipe

    folder = wanted.out or Path("runs") / Path(wanted.name).name
    with _resumable(folder):
        made = train_recipe(
            wanted.name, folder, seed=wanted.seed, max_steps=wanted.max_steps, progress=_echo
        )
    typer.echo(f'trained: {made}\nlook at it: workbench attention {made} "…"')


def _train_experiment(wanted: Wanted) -> None:
    from workbench.training.experiments import Request

    name, variant = wanted.name, wanted.variant or "bimt"
    folder_of_data = None if wanted.data is None else str(wanted.data)
    request = Request(
        name=name,
        variant=variant,
        seed=wanted.seed,
        steps=wanted.max_steps,
        folder=folder_of_data,
    )
    if request.experiment.from_files and wanted.data is None:
        raise ConfigError(f"{name} reads files of yours: name their folder with --data")
    typer.echo(f"{name}, {variant}: {request.experiment.summary}")
    folder = wanted.out or Path("runs") / f"{name}-{variant}"
    with _resumable(folder):
        from workbench.training.experiment_runs import train as train_experiment

        report = train_experiment(request, folder, progress=_echo)
    if report is not None:
        show_measures(report.table())
        typer.echo(f"trained: {folder} in {report.seconds:.0f} s")


def train_plan(wanted: Wanted) -> None:
    """Train a plan here and now, in a folder that the training page and `workbench runs` list.

    Raises:
        ConfigError: no such plan, a broken one, or a folder that holds something else.
    """
    from workbench.processes import CONTROL_FILE, alone
    from workbench.training.run_folder import adopt, folder_name

    if wanted.variant is not None:
        raise ConfigError("a plan has no variants: its strengths are fields of its own")
    plan = _plan(wanted)
    folder = adopt(wanted.out or Path("runs") / folder_name(plan.name), plan)
    with alone(folder.path, f"{folder.path} is being trained already"):
        from workbench.training.working import work

        (folder.path / CONTROL_FILE).unlink(missing_ok=True)
        work(folder, _echo)
    status = folder.status
    if status.state == "failed":
        raise WorkbenchError(status.message)
    if status.state != "finished":
        typer.echo(f"stopped: the same command goes on after step {status.step}", err=True)
        raise typer.Exit(STOPPED)
    typer.echo(
        f"trained: {folder.path} in {status.seconds:.0f} s\n"
        f"look at it: workbench modularity {folder.path}"
    )


def _plan(wanted: Wanted) -> "Plan":
    from dataclasses import replace

    from workbench.training.plan import Plan
    from workbench.training.presets import preset
    from workbench.training.task_kinds import TASK_KINDS

    # As a full path: the run goes on from any folder.
    data = None if wanted.data is None else str(wanted.data.expanduser().resolve())
    path = Path(wanted.name)
    if path.is_file():
        try:
            plan = Plan.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
    else:
        plan = preset(wanted.name, data)
    if data is not None:
        if not TASK_KINDS[plan.task].reads_files:
            raise ConfigError(f"the task {plan.task!r} reads no files of yours: leave --data out")
        if not Path(data).is_dir():
            raise ConfigError(f"no folder {data}: --data is that of your files")
        plan = replace(plan, folder=data)
    if wanted.seed is not None:
        plan = replace(plan, seed=wanted.seed)
    if wanted.max_steps is not None:
        plan = replace(plan, steps=min(plan.steps, wanted.max_steps))
    return plan


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Ctrl-C ends the command with a line that says where the same command will go on."""
    try:
        yield
    except KeyboardInterrupt:
        from workbench.training.state import STATE_FILE, read_counters

        state = folder / STATE_FILE
        step = read_counters(state)["step"] if state.is_file() else 0
        typer.echo(f"stopped: the same command goes on after step {step}", err=True)
        raise typer.Exit(STOPPED) from None


def show_measures(table: "pd.DataFrame") -> None:
    """Print measures with their shuffled means."""
    shown = plain_table("measure", "value", "shuffled", "z", "unit")
    for row in table.itertuples():
        null = ["" if x != x else f"{x:.4g}" for x in (row.null_mean, row.z)]
        value = "" if row.value != row.value else f"{row.value:.4g}"
        shown.add_row(row.measure, value, *null, row.unit)
    show(shown)


def _echo(line: object) -> None:
    typer.echo(str(line))
