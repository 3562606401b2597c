"""Commands on one pass made affine: paths, why, orders, lesions.

Each prints a table and writes all of it with `--out`. Heavy imports wait inside the commands.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from app.terminal import (
    ModelName,
    Out,
    Prompt,
    Step,
    Top,
    check_out,
    load,
    read_prompt,
    show,
    show_frame,
    write_table,
)
from workbench.errors import WorkbenchError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in COMMANDS:
        app.command(name=command.__name__.replace("_", "-"))(command)


def paths(
    model: ModelName,
    prompt: Prompt,
    target: Annotated[str | None, typer.Option(help="Default: the likeliest token.")] = None,
    versus: Annotated[
        str | None, typer.Option(help="A token to subtract, or 'mean' for the mean logit.")
    ] = None,
    pos: Annotated[int, typer.Option(help="Where the prediction is made.")] = -1,
    top: Top = 20,
    through: Annotated[
        list[str] | None,
        typer.Option(help="What enters this component next to the end; repeatable, first to last."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Take each path out: frozen, and in the model itself.")
    ] = False,
    threshold: Annotated[float, typer.Option(min=0, help="No paths smaller than this.")] = 0.0,
    coverage: Annotated[
        float | None, typer.Option(help="Stop when all else is below 1 minus this share, in sizes.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Partial paths to take apart at most.")] = 2000,
    out: Out = None,
    step: Step = None,
) -> None:
    """The largest single paths from tokens to a logit, and the exact sum of all others."""
    from workbench.paths.directions import logit_direction
    from workbench.paths.frozen import freeze

    check_out(out)
    loaded = load(model, step)
    frozen = freeze(loaded, read_prompt(prompt))
    direction = logit_direction(frozen, target, distractor=versus, pos=pos)
    if through:
        table = _entering(frozen, direction, through, top)
    else:
        ends = {"k": top, "threshold": threshold, "coverage": coverage, "limit": limit}
        table = _largest(frozen, direction, ends, verify=verify)
    facts = {"through": through, "threshold": threshold, "coverage": coverage, "limit": limit}
    asked = direction.label
    write_table(table, out, loaded, command="paths", prompt=prompt, asked=asked, **facts)


def _entering(frozen: Any, direction: Any, through: list[str], top: int) -> Any:
    """What enters a partial path, printed; the whole table."""
    from app.path_reports import feed_lines, feed_rows
    from workbench.paths.feeds import component_named, feeds

    found = feeds(frozen, direction, [component_named(frozen, label) for label in through])
    for line in feed_lines(found, direction.total):
        typer.echo(line)
    show_frame(feed_rows(found, top))
    return found.table()


def _largest(frozen: Any, direction: Any, ends: dict[str, Any], *, verify: bool) -> Any:
    """The largest paths, printed; their table."""
    from app.path_reports import list_table, order_line, path_lines, path_rows
    from app.reports import progress_bar
    from workbench.paths.orders import order_spectrum
    from workbench.paths.search import top_paths
    from workbench.paths.verify import verify as verified

    with progress_bar("partial paths") as told:
        found = top_paths(frozen, direction, progress=told, **ends)
    with progress_bar("steps") as told:
        spectrum = order_spectrum(frozen, direction, progress=told)
    checks = []
    if verify:
        with progress_bar("paths taken out") as told:
            for path in found.paths:
                checks.append(verified(frozen, direction, path))
                told(len(checks), len(found.paths))
    for line in (*path_lines(found), order_line(spectrum)):
        typer.echo(line)
    show_frame(path_rows(found, checks))
    return list_table(found, checks)


def why(
    model: ModelName,
    prompt: Prompt,
    head: Annotated[str, typer.Option(help="The head, as layer.head.")],
    query: Annotated[int, typer.Option(help="The position that looks; -1 is the last.")] = -1,
    key: Annotated[
        int | None, typer.Option(help="The position looked at; default: the one looked at most.")
    ] = None,
    versus: Annotated[
        str, typer.Option(help="Another key, 'mean' for the mean of all others, or 'none'.")
    ] = "mean",
    by: Annotated[str, typer.Option(help="component, layer or kind.")] = "component",
    top: Top = 15,
    out: Out = None,
    step: Step = None,
) -> None:
    """Why a head looks there: its score as an exact sum of pairs, query part × key part."""
    from app import score_reports
    from workbench.paths.frozen import freeze
    from workbench.paths.scores import query_key, score_parts
    from workbench.sites import Head

    check_out(out)
    named, against = Head.parse(head), score_reports.versus_of(versus)
    loaded = load(model, step)
    frozen = freeze(loaded, read_prompt(prompt))
    maps = query_key(frozen, named)
    looked_at, reason = score_reports.chosen_key(maps, query) if key is None else (key, "as given")
    whole = score_parts(frozen, maps, query, looked_at, versus=against)
    found = whole.by(by)
    for line in score_reports.token_lines(found.str_tokens, found.query, found.key):
        typer.echo(line)
    for line in score_reports.score_lines(maps, found, reason):
        typer.echo(line)
    for frame in (
        score_reports.share_rows(found),
        score_reports.side_rows(found, top),
        score_reports.pair_rows(found, top),
    ):
        typer.echo()
        show_frame(frame)
    asked = {"query": found.query, "key": found.key, "versus": against, "by": by}
    write_table(found.table(), out, loaded, command="why", prompt=prompt, head=head, **asked)


def orders(
    model: ModelName,
    prompt: Prompt,
    target: Annotated[str | None, typer.Option(help="Default: the likeliest token.")] = None,
    versus: Annotated[
        str | None, typer.Option(help="A token to subtract, or 'mean' for the mean logit.")
    ] = None,
    pos: Annotated[int, typer.Option(help="Where the prediction is made.")] = -1,
    counted: Annotated[
        str, typer.Option(help="Which components add to an order: all, heads or mlps.")
    ] = "all",
    out: Out = None,
    step: Step = None,
) -> None:
    """How much of a logit has passed through exactly n components, for every n, exactly."""
    from app.order_reports import order_lines, order_table
    from app.reports import progress_bar
    from workbench.paths.directions import logit_direction
    from workbench.paths.frozen import freeze
    from workbench.paths.orders import order_spectrum

    check_out(out)
    loaded = load(model, step)
    frozen = freeze(loaded, read_prompt(prompt))
    direction = logit_direction(frozen, target, distractor=versus, pos=pos)
    with progress_bar("steps") as told:
        found = order_spectrum(frozen, direction, counted=counted, progress=told)
    for line in order_lines(found):
        typer.echo(line)
    show(order_table(found))
    facts = {"asked": direction.label, "counted": counted}
    write_table(found.table(), out, loaded, command="orders", prompt=prompt, **facts)


def lesions(
    model: ModelName,
    prompt: Prompt,
    by: Annotated[str, typer.Option(help="layer, or component for every head too.")] = "component",
    target: Annotated[
        str | None, typer.Option(help="Measure this token's logit at the end, not the loss.")
    ] = None,
    versus: Annotated[str | None, typer.Option(help="A token to subtract from it.")] = None,
    top: Top = 20,
    out: Out = None,
    step: Step = None,
) -> None:
    """What the loss or a logit changes without each part: in the model itself, and by frozen paths."""
    from app.order_reports import lesion_lines, lesion_rows
    from app.reports import progress_bar
    from workbench.paths.lesions import lesions as lesioned

    if versus is not None and target is None:
        raise WorkbenchError("--versus needs --target: a token to subtract it from")
    check_out(out)
    loaded = load(model, step)
    of = None if target is None else (target, versus)
    with progress_bar("parts") as told:
        found = lesioned(loaded, read_prompt(prompt), by, of=of, progress=told)
    for line in lesion_lines(found):
        typer.echo(line)
    show_frame(lesion_rows(found, top))
    facts = {"by": by, "target": target, "versus": versus}
    write_table(found.table(), out, loaded, command="lesions", prompt=prompt, **facts)


COMMANDS: tuple[Callable[..., None], ...] = (paths, why, orders, lesions)
