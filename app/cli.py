"""The `workbench` command. Heavy imports wait until a command needs them, so that `--help` is instant."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import commands, path_commands, report_commands, training_commands
from app.terminal import ModelName, load, make_folder, plain_table, show
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.runs import Run

# Threads that wait must sleep, not spin: beside any other busy program spinning made searches ten times slower.
# Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

USAGE_ERROR, FAILURE = 2, 1
OUT_FORMATS = (".html", ".json", ".parquet")

app = typer.Typer(
    name="workbench",
    help="Look inside small trained transformers: attention, circuits, paths.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich help would cost a third of a second; tables are printed with rich all the same.
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"workbench {installed_version('interp-workbench')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command; `main` reads --debug itself."""


@app.command()
def models() -> None:
    """List the models that have a name."""
    from workbench.models import list_models

    table = plain_table("model", "parameters", "checkpoints", "what it is")
    for info in list_models():
        size = f"{info.n_params:,}" if info.n_params else "?"
        steps = str(len(info.steps)) if info.steps else ""
        table.add_row(info.name if info.available else f"({info.name})", size, steps, info.summary)
    show(table)


@app.command()
def info(model: ModelName) -> None:
    """Show a model's shape, its parity certificate and what was measured of it."""
    from app.info import info_table

    show(info_table(load(model)))


@app.command()
def attention(
    model: ModelName,
    prompt: Annotated[str, typer.Argument(help="The text to run; - reads it from standard input.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write the patterns: FILE.html, .json or .parquet.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="A training checkpoint of the model.")] = None,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="Heads to list.")] = 12,
) -> None:
    """Run a prompt: the next token, and where the heads look."""
    if out is not None and out.suffix not in OUT_FORMATS:
        raise WorkbenchError(f"cannot write {out.name!r}: --out takes {', '.join(OUT_FORMATS)}")
    if out is not None:
        make_folder(out.parent)  # before the run: what cannot be written need not be computed
    import workbench
    from app.info import head_table, prediction_table

    loaded = load(model, step)
    has_attention = any(loaded.n_heads_in(layer) for layer in range(loaded.cfg.n_layers))
    if out is not None and not has_attention:
        raise WorkbenchError(f"{model} has no attention to write to {out.name}")
    text = sys.stdin.read() if prompt == "-" else prompt
    run = workbench.run(loaded, text, sites=("pattern",) if has_attention else ())
    if run.logits.shape[-1]:  # an encoder predicts nothing
        show(prediction_table(loaded, run))
    if has_attention:
        show(head_table(run, rows))
    if out is not None:
        _write(run, text, out)
        typer.echo(f"wrote {out}")


def _write(run: "Run", prompt: str, out: Path) -> None:
    import workbench
    from workbench.results import provenance, save_table

    maps = workbench.pattern_maps(run)
    if out.suffix == ".html":
        workbench.attention_view(maps).to_html(out)
    else:
        made_by = provenance(command="attention", model=run.model_name, prompt=prompt)
        save_table(maps.table(), out, made_by)


@app.command()
def dashboard(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Your own: folders or files.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address; another than this machine's needs a token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8050,
    token: Annotated[
        str | None, typer.Option(help="Made up and printed where one is needed.")
    ] = None,
    runs: Annotated[
        Path, typer.Option(help="Folder of the training page's runs; made with the first.")
    ] = Path("runs"),
    reports: Annotated[
        Path, typer.Option(help="Folder of the reports page; made with the first.")
    ] = Path("reports"),
) -> None:
    """Serve the dashboard."""
    from app.server import serve

    serve(host=host, port=port, token=token, own_models=models or (), runs=runs, reports=reports)


training_commands.register(app)
commands.register(app)
path_commands.register(app)
report_commands.register(app)


def main() -> None:
    """Run the command; an error is one line and exit code 2, with --debug its trace."""
    debug = "--debug" in sys.argv
    if debug:
        # Also where people write it: at the end.
        sys.argv.remove("--debug")
    try:
        app()
    except WorkbenchError as error:
        if debug:
            raise
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise SystemExit(USAGE_ERROR) from None
    except Exception as error:
        if debug:
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        typer.echo(f"internal error: {what} (--debug shows the trace)", err=True)
        raise SystemExit(FAILURE) from None


if __name__ == "__main__":
    main()
