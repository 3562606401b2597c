"""Models side by side: their shapes, their losses, and a few numbers of every probe."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from probes.facts import ModelFacts
from probes.report.discovery import passing
from probes.report.results import Results
from probes.report.tables import Column, Table, number, place, shown


class Headline(NamedTuple):
    """One number of a probe, and how it is spelled from the rows of one model."""

    name: str
    measure: str
    spell: Callable[[pd.DataFrame], str]


def _largest(rows: pd.DataFrame) -> str:
    row = rows.loc[rows["value"].idxmax()]
    return _with_place(row)


def _farthest(rows: pd.DataFrame) -> str:
    """Largest size, whatever its sign."""
    return _with_place(rows.loc[rows["value"].abs().idxmax()])


def _last(rows: pd.DataFrame) -> str:
    return number(rows.loc[rows["layer"].astype(float).idxmax(), "value"])


def _mean(rows: pd.DataFrame) -> str:
    return number(float(rows["value"].mean()))


def _with_place(row: pd.Series) -> str:
    # An item that is a head writes for the other.
    item = str(row["item"])
    where = place(row["layer"], row["head"])
    name = f"{item} → {where}" if item and where and item != where else item or where
    return f"{number(row['value'])} ({shown(name, 40)})" if name else number(row["value"])


MOST_COLUMNS = 60
LOSSES = (
    ("logit-lens", Headline("loss after the last layer, nats", "loss", _last)),
    ("in-context-learning", Headline("mean loss over positions, nats", "loss", _mean)),
)
HEADLINES: Mapping[str, tuple[Headline, ...]] = {
    "residual-norms": (
        Headline("length after the last layer", "norm", _last),
        Headline("largest growth", "growth", _largest),
    ),
    "head-behaviours": tuple(
        Headline(f"largest {name}", name, _largest)
        for name in ("induction", "previous-token", "duplicate-token")
    ),
    "copying-eigenvalues": (
        Headline("largest copying", "copying", _largest),
        Headline("largest matching", "matching", _largest),
    ),
    "composition": tuple(
        Headline(f"largest {through}-composition", f"{through}-composition", _largest)
        for through in ("Q", "K", "V")
    ),
    "positional-kernels": (Headline("largest unevenness", "unevenness", _largest),),
    "skip-trigrams": (Headline("lift", "lift", _mean),),
    "direct-logit-attribution": (Headline("largest direct effect", "direct effect", _farthest),),
    "logit-lens": (Headline("share right after the last layer", "right", _last),),
    "in-context-learning": (Headline("late minus early loss, nats", "score", _mean),),
    "head-ablation": (Headline("largest effect", "effect", _farthest),),
    "linear-probes": (Headline("largest selectivity", "selectivity", _largest),),
}


def model_table(results: Results, findings: pd.DataFrame) -> Table:
    """Models across; down their shapes, losses and headlines."""
    labels = results.side_by_side[:MOST_COLUMNS]
    rows_of = dict(iter(findings.groupby("model", sort=False)))
    by_model = {label: rows_of.get(label, findings.iloc[:0]) for label in labels}
    facts = [results.facts.get(_hash(results, label)) for label in labels]
    rows = [*_shape_rows(facts)]
    for probe, headline in LOSSES:
        rows += _headline_rows(probe, (headline,), by_model)
    for probe in results.probes:
        rows.append((probe, "pass / tested", *(_counted(of, probe) for of in by_model.values())))
        rows += _headline_rows(probe, HEADLINES.get(probe, ()), by_model)
    columns = (Column("about"), Column("what"), *(Column(shown(label), True) for label in labels))
    note = (
        "In brackets: of which head or part; “2.1 → 3.0” is written by one and read by the other."
    )
    for label, kept in results.repeats.items():
        note += f" {shown(label)} is {shown(kept)} under another name and stands here once."
    if n_more := len(results.side_by_side) - len(labels):
        note += f" {n_more:,} more models are in findings.parquet."
    left = len(results.models) - len(results.side_by_side) - len(results.repeats)
    if left:
        note += f" {left} earlier checkpoints are left out here; figures over training show them."
    return Table(columns, tuple(rows), note)


def _hash(results: Results, label: str) -> str:
    return next(job.model_hash for job in results.jobs if job.model == label)


def _shape_rows(facts: list[ModelFacts | None]) -> Iterator[tuple[str, ...]]:
    shape: dict[str, Callable[[ModelFacts], str]] = {
        "kind": lambda of: of.kind,
        "parameters": lambda of: number(of.n_params),
        "layers": lambda of: number(of.n_layers),
        "heads": lambda of: number(of.n_heads) if of.has_attention else "none",
        "d_model": lambda of: number(of.d_model),
        "d_head": lambda of: number(of.d_head) if of.has_attention else "",
        "d_mlp": lambda of: number(of.d_mlp) if of.has_mlp else "none",
        "vocabulary": lambda of: number(of.d_vocab),
        "context": lambda of: number(of.n_ctx),
        "norm": lambda of: f"{of.norm}, {of.norm_position}" if of.norm != "none" else "none",
        "positions": lambda of: of.positions,
    }
    for name, spell in shape.items():
        cells = ["" if of is None else shown(spell(of), 40) for of in facts]
        if any(cells):
            yield ("shape", name, *cells)


def _headline_rows(
    probe: str, headlines: tuple[Headline, ...], by_model: Mapping[str, pd.DataFrame]
) -> list[tuple[str, ...]]:
    found = []
    for headline in headlines:
        cells = []
        for rows in by_model.values():
            of = rows[(rows["probe"] == probe) & (rows["measure"] == headline.measure)]
            of = of[of["value"].notna()]
            if headline.spell is _last:
                of = of[of["layer"].notna()]
            # Beside heads a table may hold what a head would score that does nothing.
            of = of[of["head"].notna()] if of["head"].notna().any() else of
            cells.append(headline.spell(of) if len(of) else "")
        if any(cells):
            found.append((probe, headline.name, *cells))
    return found


def _counted(rows: pd.DataFrame, probe: str) -> str:
    of = rows[rows["probe"] == probe]
    if not len(of):
        return "–"
    return f"{len(passing(of)):,} / {int(of['p'].notna().sum()):,}"
