"""Commands about training: train, the list of runs, and how modular a network is.

Heavy imports wait inside the commands.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import training
from app.terminal import Out, Step, check_out, plain_table, show, write_table
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.training.run_folder import RunFolder

DEFAULT_ROOT = Path("runs")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (train, runs, modularity):
        app.command()(command)


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A name of the bundled zoo; or bimt-independence, bimt-feature-sharing, "
            "bimt-compositionality, bimt-two-moons, bimt-modular-addition, bimt-s4, bimt-digits, "
            "bimt-mnist, bimt-in-context.",
        ),
    ] = None,
    named: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="The same as RECIPE.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A plan instead of a recipe: FILE.json, or a preset's name."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default runs/RECIPE.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the recipe's own.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop early.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Of a bimt- recipe: none, l1, local, swap, bimt (default).")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Of your files, for bimt-mnist (the four idx files of MNIST, plain or .gz) and plans that "
            "read any.",
        ),
    ] = None,
) -> None:
    """Train a bundled model anew, a network to be modular, or a plan; what was interrupted continues."""
    given = [name for name in (recipe, named, plan) if name is not None]
    if len(given) != 1:
        both = "more than one" if given else "none"
        raise ConfigError(f"give one of RECIPE, --recipe and --plan, not {both}")
    wanted = training.Wanted(given[0], out, seed, max_steps, variant, data)
    if plan is not None:
        training.train_plan(wanted)
    else:
        training.train(wanted)


def runs(
    root: Annotated[
        Path, typer.Argument(metavar="[ROOT]", help="The folder that holds them.")
    ] = DEFAULT_ROOT,
) -> None:
    """List the training runs in a folder, the newest first."""
    from workbench.training.run_folder import list_runs

    found = list_runs(root)
    if not found:
        typer.echo(f"no runs in {root}: the training page makes them, and workbench train --plan")
        return
    table = plain_table("run", "task", "state", "step", "seconds", "loss", "")
    for folder in found:
        status = folder.status
        step = f"{status.step:,}/{status.steps:,}"
        told = (folder.name, _task_of(folder), status.state, step, f"{status.seconds:.0f}")
        table.add_row(*told, _loss_of(folder), status.message)
    show(table)


def _task_of(folder: "RunFolder") -> str:
    from workbench.errors import CheckpointError

    try:
        return folder.plan.task
    except CheckpointError:
        return "?"


def _loss_of(folder: "RunFolder") -> str:
    from workbench.training.loop import read_metrics

    lines = read_metrics(folder.path)
    last = lines[-1] if lines else {}
    loss = last.get("test_loss", last.get("loss"))
    return "" if loss is None else f"{loss:.4g}"


def modularity(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Folder of a run, an experiment or a model; or a model's name."
        ),
    ],
    step: Step = None,
    shuffles: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Networks in each null.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0.0, help="How far pruning may raise the loss.")
    ] = None,
    out: Out = None,
) -> None:
    """Loss, modules, wiring, cross-talk and what pruning leaves, each against chance."""
    check_out(out)
    from workbench.training.measuring import measured, subject

    chosen = subject(run, step)
    typer.echo(f"{chosen.model.name}: {chosen.n_wires:,} wires, {chosen.data or 'of unknown task'}")
    found = measured(chosen, shuffles=shuffles, tolerance=tolerance)
    training.show_measures(found.table())
    if chosen.examples is None:
        typer.echo("nothing says what it was trained on: no loss, and so no pruning")
    if found.options.sides is None and found.options.apart is None:
        typer.echo("no cross-talk: nothing says which inputs belong to which outputs")
    write_table(found.table(), out, chosen.model, command="modularity", step=step)
