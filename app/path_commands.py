"""Commands on one pass made affine: paths, why, orders, lesions.

Each prints a table and writes all of it with `--out`. Heavy imports wait inside the commands.
"""

from collections.abc import Callable

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in COMMANDS:
        app.command(name=command.__name__.replace("_", "-"))(command)


COMMANDS: tuple[Callable[..., None], ...] = ()
