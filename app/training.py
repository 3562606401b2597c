"""What `workbench train` does: a bundled model anew, or an experiment in modular training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.terminal import plain_table, show
from workbench.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

STOPPED = 130


def train(
    recipe: str, out: Path | None, seed: int | None, max_steps: int | None, variant: str | None
) -> None:
    """Train by name; progress and results are printed.

    Raises:
        ConfigError: a variant of something that has none.
    """
    from workbench.training.experiments import PREFIX

    if recipe.startswith(PREFIX):
        _train_experiment(recipe, out, seed, max_steps, variant or "bimt")
        return
    if variant is not None:
        raise ConfigError(f"{recipe[:40]!r} has no variants: those named {PREFIX}… have")
    from workbench.training.recipes import train as train_recipe

    folder = out or Path("runs") / Path(recipe).name
    with _resumable(folder):
        made = train_recipe(recipe, folder, seed=seed, max_steps=max_steps, progress=_echo)
    typer.echo(f'trained: {made}\nlook at it: workbench attention {made} "…"')


def _train_experiment(
    name: str, out: Path | None, seed: int | None, max_steps: int | None, variant: str
) -> None:
    from workbench.training.experiments import Request

    request = Request(name=name, variant=variant, seed=seed, steps=max_steps)
    typer.echo(f"{name}, {variant}: {request.experiment.summary}")
    folder = out or Path("runs") / f"{name}-{variant}"
    with _resumable(folder):
        from workbench.training.experiment_runs import train as train_experiment

        report = train_experiment(request, folder, progress=_echo)
    if report is not None:
        _show(report.table())
        typer.echo(f"trained: {folder} in {report.seconds:.0f} s")


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


def _show(table: "pd.DataFrame") -> None:
    shown = plain_table("measure", "value", "shuffled", "z", "unit")
    for row in table.itertuples():
        null = ["" if x != x else f"{x:.4g}" for x in (row.null_mean, row.z)]
        value = "" if row.value != row.value else f"{row.value:.4g}"
        shown.add_row(row.measure, value, *null, row.unit)
    show(shown)


def _echo(line: object) -> None:
    typer.echo(str(line))
