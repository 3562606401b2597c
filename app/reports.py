"""What the analysis commands print: tables, lines about a circuit, a progress bar on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from workbench.circuits.copying import eigen_cloud
from workbench.circuits.full import Circuit
from workbench.circuits.top_entries import TopEntries
from workbench.errors import PromptError, UnsupportedError
from workbench.figures.tokens import visible
from workbench.models.protocol import Model
from workbench.sites import Head
from workbench.stream.lens import LogitLens
from workbench.vocabulary import token_texts
from workbench.weights import EffectiveWeights

Told = Callable[[int, int], None]


@contextmanager
def progress_bar(what: str) -> Iterator[Told]:
    """A bar on standard error that moves as it is told; Ctrl-C stops the work."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def frame_table(frame: pd.DataFrame) -> Table:
    """A DataFrame as the terminal shows it: four digits, whitespace of tokens visible."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in frame.columns:
        is_number = pd.api.types.is_numeric_dtype(frame[column])
        table.add_column(str(column), justify="right" if is_number else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(_spelled(value)) for value in row))
    return table


def _spelled(value: Any) -> str:
    if value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return visible(value) if isinstance(value, str) and value.strip() != value else str(value)


def lens_table(found: LogitLens, pos: int) -> Table:
    """Layer by layer: the three likeliest tokens at a position, the distance to the end, followed tokens.

    Raises:
        PromptError: no such position.
    """
    n_pos = len(found.str_tokens)
    if not -n_pos <= pos < n_pos:
        raise PromptError(f"no position {pos}: the prompt's are 0 to {n_pos - 1}")
    rows = []
    for layer, label in enumerate(found.labels):
        texts, probs = found.top_texts[layer][pos], found.top_probs[layer, pos]
        likely = [f"{visible(t)} {p:.3f}" for t, p in list(zip(texts, probs, strict=True))[:3]]
        row = {
            "stream": label,
            "predicts": "   ".join(likely),
            "KL to final (nats)": found.kl[layer, pos],
        }
        for index, text in enumerate(found.chosen_texts):
            row[f"rank of {visible(text)}"] = int(found.ranks[layer, pos, index])
        rows.append(row)
    return frame_table(pd.DataFrame(rows))


def circuit_lines(circuit: Circuit, weights: EffectiveWeights) -> Iterator[str]:
    """What the circuit is, its copying score against random heads, and what stays outside the weights."""
    at = "" if circuit.offset is None else f", offset {circuit.offset}"
    gauge = f", relative to the mean {circuit.column_axis}" if circuit.is_centred else ""
    axes = f"{circuit.row_axis} × {circuit.column_axis}"
    yield f"{circuit.model_name} {circuit.label} {circuit.kind}{at}: {axes}, in {circuit.unit}{gauge}"
    try:
        cloud = eigen_cloud(circuit, weights, n_null=100)
    except UnsupportedError as error:
        yield f"no eigenvalues: {error}"
    else:
        null = cloud.null_scores
        beaten = 100 * float((null < cloud.score).mean())
        yield (
            f"Σ Re λ / Σ |λ| = {cloud.score:.3f}; random heads {null.mean():.3f} ± {null.std():.3f} "
            f"(above {beaten:.0f} % of {len(null)})"
        )
    if weights.unfolded:
        yield f"not in the weights: {'; '.join(weights.unfolded)}"


def entries_table(circuit: Circuit, entries: TopEntries, model: Model) -> pd.DataFrame:
    """Entries with their tokens: one column for the row's, one for the column's, value and unit."""
    columns = {}
    axes = (
        (circuit.row_axis, circuit.row_kind, entries.rows),
        (circuit.column_axis, circuit.column_kind, entries.columns),
    )
    for axis, kind, ids in axes:
        columns[axis] = token_texts(model, ids.tolist()) if kind == "token" else ids.tolist()
        columns[f"{axis}_id"] = ids.tolist()
    return pd.DataFrame({**columns, "value": entries.values, "unit": circuit.unit})


def trigram_table(
    weights: EffectiveWeights,
    head: str | None,
    given: dict[str, str | None],
    top: int,
    *,
    count: bool,
    progress: Told,
) -> pd.DataFrame:
    """The best skip-trigrams of one head or of all; with counts in held-out text if asked for."""
    from workbench.trigrams.counts import occurrences
    from workbench.trigrams.listing import skip_trigrams

    model = weights.model
    heads = weights.heads if head is None else (Head.parse(head),)
    if not heads:
        raise UnsupportedError(f"{model.name} has no attention, so no skip-trigrams")
    frames = []
    for done, one in enumerate(heads, start=1):
        found = skip_trigrams(weights, one, k=top, **given)  # type: ignore[arg-type]  # keys are the places
        frame = occurrences(model, found).table() if count else found.table()
        frames.append(frame.assign(head=str(one)))
        progress(done, len(heads))
    whole = pd.concat(frames, ignore_index=True)
    whole = whole.sort_values("score", ascending=False, kind="stable").head(top)
    shown = [name for name in whole.columns if name != "head" and not name.endswith("_id")]
    return whole[["head", *shown]].reset_index(drop=True)


def card_lines(card: Any) -> Iterator[str]:
    """What behaviour and weights disagree about."""
    yield from card.flags or ("behaviour and weights agree",)
