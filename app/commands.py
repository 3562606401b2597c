"""Commands that take a model apart: lens, attribute, circuits, skip-trigrams, composition, geometry, head.

Each prints a table and writes all of it with `--out`. Heavy imports wait inside the commands.
"""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from app.terminal import (
    ModelName,
    Offset,
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

# What fits a terminal; `--out` writes every column.
TRIGRAM_COLUMNS = (
    *("head", "source", "destination", "out", "attention", "output"),
    *("n", "n_followed", "rate", "chance", "effect", "gain"),
)
Raw = Annotated[
    bool, typer.Option("--raw", help="Do not divide embeddings by their own norm scale.")
]
HeadName = Annotated[str, typer.Option("--head", help="The head, as layer.head.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (lens, attribute, circuits, skip_trigrams, composition, geometry, head):
        app.command(name=command.__name__.replace("_", "-"))(command)


def lens(
    model: ModelName,
    prompt: Prompt,
    pos: Annotated[int, typer.Option(help="The position to print; -1 is the last.")] = -1,
    token: Annotated[list[str] | None, typer.Option(help="A token to follow; repeatable.")] = None,
    out: Out = None,
    step: Step = None,
) -> None:
    """The logit lens: what each layer's stream would predict."""
    from app.reports import lens_table
    from workbench.stream.lens import logit_lens

    loaded = _load(model, step, out)
    with _progress("layers") as told:
        found = logit_lens(loaded, read_prompt(prompt), tokens=token or (), progress=told)
    show(lens_table(found, pos))
    write_table(found.table(), out, loaded, command="lens", prompt=prompt)


def attribute(
    model: ModelName,
    prompt: Prompt,
    target: Annotated[str | None, typer.Option(help="Default: the likeliest token.")] = None,
    distractor: Annotated[
        str | None, typer.Option(help="A token to subtract, or 'mean' for the mean logit.")
    ] = None,
    by: Annotated[str, typer.Option(help="component, head, neuron or source.")] = "head",
    pos: Annotated[int, typer.Option(help="Where the prediction is made.")] = -1,
    top: Top = 12,
    out: Out = None,
    step: Step = None,
) -> None:
    """Direct logit attribution: what every part adds to a logit; the parts sum to it."""
    from workbench.stream.attribution import logit_attribution

    loaded = _load(model, step, out)
    found = logit_attribution(
        loaded, read_prompt(prompt), target, distractor=distractor, by=by, pos=pos
    )
    against = f" minus {found.distractor!r}" if found.distractor else ""
    typer.echo(f"logit of {found.target!r}{against} at position {found.pos}: {found.total:.4f}")
    typer.echo(f"the parts sum to it within {abs(found.residual):.1e}")
    show_frame(found.top(top)[["part", "kind", "value", "unit"]])
    write_table(found.table(), out, loaded, command="attribute", prompt=prompt, by=by)


def circuits(
    model: ModelName,
    head: HeadName,
    kind: Annotated[str, typer.Option(help="OV or QK.")] = "OV",
    by: Annotated[str, typer.Option(help="largest, smallest or size.")] = "largest",
    earlier: Annotated[
        str | None, typer.Option(help="An earlier head: look at the virtual head of both.")
    ] = None,
    through: Annotated[str, typer.Option(help="How the later head reads it: Q, K or V.")] = "V",
    offset: Offset = 0,
    raw: Raw = False,
    top: Top = 20,
    out: Out = None,
    step: Step = None,
) -> None:
    """A head's full QK or OV circuit over the vocabulary: eigenvalues and top entries."""
    from app.reports import circuit_lines, entries_table
    from workbench.weights import effective_weights

    loaded = _load(model, step, out)
    weights = effective_weights(loaded, normalise_tokens=not raw)
    chosen = _chosen_head(weights, head, earlier, through)
    found = _circuit(weights, chosen, kind, offset)
    for line in circuit_lines(found, weights):
        typer.echo(line)
    with _progress("blocks") as told:
        entries = found.top(
            top, by=cast(Any, _one_of(by, "largest", "smallest", "size")), progress=told
        )
    table = entries_table(found, entries, loaded)
    show_frame(table)
    write_table(
        table, out, loaded, command="circuits", head=head, kind=kind, by=by, offset=offset, raw=raw
    )


def skip_trigrams(
    model: ModelName,
    head: Annotated[str | None, typer.Option(help="Default: all heads, best first.")] = None,
    source: Annotated[str | None, typer.Option(help="The token attended to, spelled out.")] = None,
    destination: Annotated[str | None, typer.Option(help="The token attending.")] = None,
    follows: Annotated[str | None, typer.Option("--predicts", help="The token raised.")] = None,
    raw: Raw = False,
    count: Annotated[bool, typer.Option(help="Count them in held-out text.")] = False,
    top: Top = 20,
    out: Out = None,
    step: Step = None,
) -> None:
    """Skip-trigrams [source] … [destination] → [out], from the weights alone."""
    from app.reports import trigram_table
    from workbench.weights import effective_weights

    loaded = _load(model, step, out)
    given = {"source": source, "destination": destination, "out": follows}
    with _progress("heads") as told:
        weights = effective_weights(loaded, normalise_tokens=not raw)
        table = trigram_table(weights, head, given, top, count=count, progress=told)
    show_frame(table[[name for name in TRIGRAM_COLUMNS if name in table]])
    write_table(table, out, loaded, command="skip-trigrams", head=head, given=given, raw=raw)


def composition(
    model: ModelName, offset: Offset = 0, top: Top = 20, out: Out = None, step: Step = None
) -> None:
    """Q, K and V composition of all pairs of heads, against chance."""
    from workbench.composition.scores import composition_scores
    from workbench.weights import effective_weights

    loaded = _load(model, step, out)
    with _progress("pairs") as told:
        found = composition_scores(effective_weights(loaded), offset=offset, progress=told)
    table = found.table()
    best = table.reindex(table["excess"].abs().sort_values(ascending=False).index)
    names = ["through", "writer", "reader", "score", "chance", "excess", "z", "matching"]
    show_frame(best[names].head(top))
    write_table(table, out, loaded, command="composition", offset=offset)


def geometry(
    model: ModelName, offset: Offset = 0, top: Top = 60, out: Out = None, step: Step = None
) -> None:
    """Symmetry, eigenvalue mass and effective ranks of every head, against chance."""
    from workbench.circuits.geometry import qk_geometry
    from workbench.weights import effective_weights

    loaded = _load(model, step, out)
    with _progress("heads") as told:
        table = qk_geometry(effective_weights(loaded), offset=offset, progress=told).table()
    show_frame(table.drop(columns=["offset"]).head(top))
    write_table(table, out, loaded, command="geometry", offset=offset)


def head(
    model: ModelName,
    name: Annotated[str, typer.Argument(metavar="HEAD", help="As layer.head.")],
    out: Out = None,
    step: Step = None,
) -> None:
    """One head's card: what it does, what its weights say, and where these disagree."""
    from app.reports import card_lines
    from workbench.heads.cards import head_card
    from workbench.sites import Head

    loaded = _load(model, step, out)
    with _progress("heads") as told:
        card = head_card(loaded, Head.parse(name), progress=told)
    show_frame(card.table())
    for line in card_lines(card):
        typer.echo(line)
    write_table(card.table(), out, loaded, command="head", head=name)


def _chosen_head(weights: Any, head: str, earlier: str | None, through: str) -> Any:
    from workbench.composition.virtual import virtual_head
    from workbench.sites import Head

    later = Head.parse(head)
    if earlier is None:
        return weights.head(later)
    path = _one_of(through.upper(), "Q", "K", "V")
    return virtual_head(weights, later, Head.parse(earlier), through=cast(Any, path))


def _circuit(weights: Any, head: Any, kind: str, offset: int) -> Any:
    from workbench.circuits.full import ov_circuit, qk_circuit

    if _one_of(kind.upper(), "OV", "QK") == "QK":
        return qk_circuit(weights, head, offset=offset)
    if offset:
        raise WorkbenchError("--offset is for QK circuits: what a head moves does not depend on it")
    return ov_circuit(weights, head)


def _one_of(given: str, *known: str) -> str:
    if given not in known:
        raise WorkbenchError(f"no {given[:40]!r} here: choose {', '.join(known)}")
    return given


def _progress(what: str) -> Any:
    from app.reports import progress_bar

    return progress_bar(what)


def _load(name: str, step: int | None, out: Path | None) -> Any:
    check_out(out)
    return load(name, step)
