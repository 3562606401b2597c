"""Commands on many models at once: report, probes, query.

`report` asks every probe of every model and goes on where an earlier run stopped; `query` reads what it
found, without loading torch. Heavy imports wait inside the commands.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.terminal import check_out, make_folder, plain_table, show
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import pandas as pd

    from probes.engine import Status
    from probes.plan import Plan
    from probes.requests import Request

FAILED, STOPPED = 1, 130
OUT = Path("report")
MAX_COLUMNS = 9


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, probes, query):
        app.command(name=command.__name__)(command)


def report(
    models: Annotated[
        str, typer.Option(help="Names, folders or files with commas; name@step, name@*, 'runs/*/'.")
    ] = "",
    probes: Annotated[str | None, typer.Option(help="Names with commas, or all.")] = None,
    data: Annotated[
        str | None, typer.Option(help="stdlib, a folder, or a .jsonl, .parquet or .txt file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results and the report; default report.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default all cores.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="For all of them, such as 4GB; default what is free.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
    plan: Annotated[
        Path | None, typer.Option(help="All of this from FILE.yaml or .toml; options go first.")
    ] = None,
    config: Annotated[list[str] | None, typer.Option(help="probe.field=value, repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, run nothing.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            help="Go on from what is there, or compute all that is asked anew: each result stays until "
            "the new one takes its place, and those of other plans stay."
        ),
    ] = True,
) -> None:
    """Ask probes of models and write one report; what was found before is not computed again.

    A model that cannot be read fails in its place; the others are asked, and the exit code is 1.
    """
    options = {
        "models": tuple(name for name in models.split(",") if name.strip()) or None,
        "probes": probes,
        "data": data,
        "workers": workers,
        "memory": memory,
        "engine": engine,
        "address": address,
        "out": None if out is None else str(out),
    }
    request = _request(plan, config or [], options)
    out = Path(request.out)
    from probes.plan import make_plan
    from probes.store import Store

    if not dry_run:
        make_folder(out)
    store = Store(out / "store")
    planned = make_plan(request.asked(), store, keep=not dry_run, anew=not resume)
    _show_plan(planned, request)
    if dry_run:
        return
    status = _run(planned, store, request)
    _show_end(planned, store, status)
    from probes.report import write_report

    typer.echo(f"wrote {write_report(store.folder, out)}")
    if any(record is not None and record.status == "failed" for _, record in store.records()):
        raise typer.Exit(FAILED)


def _request(plan: Path | None, config: list[str], options: dict[str, Any]) -> "Request":
    """What a file says and, over it, what the options say."""
    from probes.plan import merged, read_settings
    from probes.requests import Request, read_request_file

    given = read_request_file(plan) if plan is not None else {}
    settings = merged(given.pop("settings", {}), read_settings(config))
    given |= {name: value for name, value in options.items() if value is not None}
    return Request(**{"models": (), **given, "settings": settings})


def _show_plan(planned: "Plan", request: "Request") -> None:
    """What will be asked: one line for each probe, and what all of it takes."""
    from probes.engine import Limits
    from workbench.budget import spell_bytes

    table = plain_table("probe", "to run", "done", "refused", "seconds", "memory")
    for name, jobs in planned.table().groupby("probe", sort=False):
        waiting = jobs[jobs["status"] == "to run"]
        table.add_row(
            str(name),
            str(len(waiting)),
            *(str(int((jobs["status"] == status).sum())) for status in ("done", "refused")),
            f"{waiting['seconds'].sum():.1f}",
            spell_bytes(int(waiting["nbytes"].max())) if len(waiting) else "",
        )
    show(table)
    frame = planned.table()
    for row in frame[frame["status"] == "refused"].itertuples():
        typer.echo(f"refused: {row.probe} of {row.model}: {row.reason}")
    for row in frame[frame["status"] == "broken"].drop_duplicates("model").itertuples():
        typer.echo(f"cannot be read: {row.model}: {row.reason}", err=True)
    waiting, models = [job for job in planned.to_run if not job.refusal], frame["model"].nunique()
    n_workers = Limits(workers=request.workers, memory=request.memory).n_workers
    seconds = sum(job.seconds for job in waiting)
    typer.echo(
        f"models: {models}; jobs: {len(frame)}, to run: {len(waiting)}, in about {_time(seconds / n_workers)}; "
        f"workers: {n_workers}"
    )


def _run(planned: "Plan", store: Any, request: "Request") -> "Status":
    """Run the plan under a progress bar."""
    from probes.engine import Limits, run_plan

    limits = Limits(workers=request.workers, memory=request.memory)
    try:
        with _bar() as told:
            if request.engine == "ray":
                from probes.ray_engine import run_plan_on_ray

                return run_plan_on_ray(planned, store, limits, told, address=request.address)
            return run_plan(planned, store, limits, told)
    except KeyboardInterrupt:
        n_done = sum(record is not None for _, record in store.records())
        typer.echo(f"stopped: {n_done} of {len(planned.jobs)} jobs are done and kept", err=True)
        typer.echo("the same command goes on from there; with --no-resume it begins anew", err=True)
        raise typer.Exit(STOPPED) from None


@contextmanager
def _bar() -> Iterator[Callable[["Status"], None]]:
    """A bar on standard error: what is being asked, and the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.fields[said]}"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, said="starting")

        def told(status: "Status") -> None:
            doing = status.running[0][:60] if status.running else ""
            bar.update(
                task,
                completed=status.share,
                said=f"{status.n_done}/{status.n_jobs} jobs",
                description=f"about {_time(status.remaining)} left  {doing}".replace("[", "\\["),
            )

        yield told


def _time(seconds: float) -> str:
    """Seconds as a person reads them."""
    return time.strftime("%H:%M:%S" if seconds >= 3600 else "%M:%S", time.gmtime(seconds + 0.5))


def _show_end(planned: "Plan", store: Any, status: "Status") -> None:
    """How many jobs ended how, and why some failed."""
    for job, record in store.records():
        if record is not None and record.status == "failed":
            typer.echo(f"failed: {job.label}: {record.error}", err=True)
    notes = Counter(record.note for _, record in store.records() if record is not None)
    for note, count in notes.items():
        if note:
            typer.echo(f"{note} ({count} jobs)")
    # Two names of one model are asked once.
    kept = len({job.key for job in planned.jobs}) - status.n_jobs
    typer.echo(
        f"{status.n_jobs} jobs run: {status.n_ok} ok, {status.n_failed} failed, "
        f"{status.n_refused} refused; {kept} were there"
    )


def probes(
    name: Annotated[str | None, typer.Argument(help="Tell all about one.")] = None,
) -> None:
    """List the probes: questions that are asked of any model."""
    from probes.registry import get_probe, probe_names

    if name is not None:
        _describe(get_probe(name))
        return
    table = plain_table("probe", "reads", "question")
    for one in probe_names():
        probe = get_probe(one)
        table.add_row(one, probe.kind, probe.question)
    show(table)


def _describe(probe: Any) -> None:
    from dataclasses import asdict

    typer.echo(f"{probe.title} ({probe.name}, version {probe.version}, reads {probe.kind})")
    for heading, text in (
        ("Question", probe.question),
        ("Method", probe.method),
        ("Limits", probe.limits),
        ("Needs", probe.needs),
    ):
        typer.echo(f"\n{heading}\n{text}")
    typer.echo("\nSettings")
    for field, default in asdict(probe.Config()).items():
        typer.echo(f"  --config {probe.name}.{field}={default}")


def query(
    sql: Annotated[str, typer.Argument(help="A SELECT over the tables findings and jobs.")],
    store: Annotated[Path, typer.Option(help="The folder of a report.")] = OUT,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows to print.")] = 50,
    out: Annotated[
        Path | None, typer.Option(help="Also write the answer: FILE.parquet or .json.")
    ] = None,
) -> None:
    """Ask the findings of a report with SQL."""
    from probes.store import PLAN_FILE, Store

    check_out(out)
    inner = store / "store"
    folder = inner if (inner / PLAN_FILE).is_file() else store
    found = Store(folder).frame(sql)
    _print(found, rows)
    if out is not None:
        from workbench.results import provenance, save_table

        save_table(found, out, provenance(command="query", sql=sql))
        typer.echo(f"wrote {out}")


def _print(frame: "pd.DataFrame", rows: int) -> None:
    from rich.text import Text

    if not len(frame.columns):
        raise WorkbenchError("the answer has no columns")
    is_wide = len(frame.columns) > MAX_COLUMNS
    table = plain_table(*(("column", "value") if is_wide else map(str, frame.columns)))
    for row in frame.head(rows).itertuples(index=False):
        texts = [Text(_spelled(value)) for value in row]
        if is_wide:  # one below the other: side by side nobody could read them
            for name, text in zip(frame.columns, texts, strict=True):
                table.add_row(str(name), text)
            table.add_row("", "")
        else:
            table.add_row(*texts)
    show(table)
    if len(frame) > rows:
        typer.echo(f"… {len(frame) - rows:,} more rows (--rows, --out)")


def _spelled(value: Any) -> str:
    # Nothing, in all the forms that a DataFrame has for it, is unlike itself.
    if value is None or str(value) in ("<NA>", "nan", "NaT"):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
