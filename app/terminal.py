"""What all commands share: their arguments, loading a model, writing folders and tables. Imports wait."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import pandas as pd

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name from `workbench models`, a folder or a file.")
]
Prompt = Annotated[str, typer.Argument(help="The text to run; - reads it from standard input.")]
Out = Annotated[
    Path | None, typer.Option(help="Also write the whole table: FILE.parquet or .json.")
]
Step = Annotated[int | None, typer.Option(help="A training checkpoint of the model.")]
Top = Annotated[int, typer.Option(min=1, max=10_000, help="Rows to print.")]
Offset = Annotated[
    int, typer.Option(help="Query minus key position; matters with rotary positions.")
]


def load(name: str, step: int | None = None) -> Any:
    """A model; what happens meanwhile is told on standard error."""
    import workbench

    return workbench.load(name, step=step, progress=lambda line: typer.echo(line, err=True))


def check_out(out: Path | None) -> None:
    """Refuse, before anything is computed, a table that could not be written.

    Raises:
        WorkbenchError: another file type, or a folder that cannot be written to.
    """
    from workbench.results import FORMATS

    if out is None:
        return
    if out.suffix not in FORMATS:
        raise WorkbenchError(f"cannot write {out.name!r}: --out takes {', '.join(FORMATS)}")
    make_folder(out.parent)


def make_folder(folder: Path) -> None:
    """A folder that is there.

    Raises:
        WorkbenchError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"cannot write to {folder}: {error.strerror}") from error


def write_table(table: "pd.DataFrame", out: Path | None, model: Any, **facts: Any) -> None:
    """Save a table where asked for, with what made it."""
    from workbench.results import model_hash, provenance, save_table

    if out is not None:
        made_by = provenance(model=model.name, model_hash=model_hash(model), **facts)
        save_table(table, out, made_by)
        typer.echo(f"wrote {out}")


def read_prompt(prompt: str) -> str:
    """The prompt itself; `-` stands for standard input."""
    return sys.stdin.read() if prompt == "-" else prompt


def plain_table(*columns: str) -> Any:
    """An empty rich table without lines."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(table: Any) -> None:
    """Print a rich table."""
    from rich.console import Console

    Console().print(table)


def show_frame(frame: "pd.DataFrame") -> None:
    """Print a DataFrame."""
    from app.reports import frame_table

    show(frame_table(frame))
