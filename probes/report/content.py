"""What a report says, before it has a form: statements, tables, figures, one section for each probe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.report.coarseness import Coarse, coarse
from probes.report.discovery import LEVEL, Discovery, at_most, discovered, once, passing, ranked
from probes.report.figures import Budget, Picture
from probes.report.headlines import model_table
from probes.report.heads import Card, cards_by_model
from probes.report.overview import training_figure
from probes.report.provenance import (
    command,
    config_of,
    jobs_table,
    known_probe,
    provenance_tables,
)
from probes.report.results import Results
from probes.report.tables import Table, findings_rows, main_rows, number, shown

MOST_ROWS, MOST_STANDING_OUT, MOST_COUNTED = 120, 25, 12
# More lines than this cannot be told apart in one figure.
MOST_DRAWN = 40
PER_MEASURE, PER_PROBE = 2, 3


@dataclass(frozen=True)
class Section:
    """One probe.

    Args:
        said: how many rows, tests and models there are.
        coarse: why nothing could pass, and what to raise; "" where something could.
        missing: models without a result: how their job ended, and why.
    """

    name: str
    title: str
    question: str
    method: str
    limits: str
    said: tuple[str, ...]
    coarse: str
    pictures: tuple[Picture, ...]
    table: Table
    missing: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Content:
    """A whole report.

    Args:
        findings: every row, with effect, prominence and q.
        template: of all figures, as JSON.
    """

    title: str
    said: tuple[str, ...]
    standing_out: Table
    models: Table
    training: tuple[Picture, ...]
    sections: tuple[Section, ...]
    cards: Mapping[str, tuple[Card, ...]]
    jobs: Table
    provenance: tuple[tuple[str, Table], ...]
    command: str
    findings: pd.DataFrame
    discovery: Discovery
    template: str


def content(results: Results) -> Content:
    """Everything that a report of these results says."""
    findings, discovery = discovered(results.findings())
    budget = Budget()
    training = training_figure(results)
    n_models = len({job.model_hash for job in results.jobs})
    n_probes = len(results.probes)
    too_coarse = _too_coarse(results, findings)
    return Content(
        title=f"Probe report: {_count(n_models, 'model')}, {_count(n_probes, 'probe')}",
        said=_said(results, discovery, tuple(too_coarse)),
        standing_out=_standing_out(results, findings),
        models=model_table(results, findings),
        training=tuple(budget.pictures([training] if training is not None else [])),
        sections=tuple(
            _section(results, probe, findings, too_coarse.get(probe), budget)
            for probe in results.probes
        ),
        cards=cards_by_model(results, findings),
        jobs=jobs_table(results),
        provenance=provenance_tables(results),
        command=command(results),
        findings=findings.drop(columns="key"),
        discovery=discovery,
        template=budget.template,
    )


def _count(n: int, of: str) -> str:
    return f"{n:,} {of}" if n == 1 else f"{n:,} {of}s"


def _too_coarse(results: Results, findings: pd.DataFrame) -> dict[str, Coarse]:
    """By probe, where nothing could pass."""
    known = {name: known_probe(name) for name in results.probes}
    asked = {
        name: coarse(probe, config_of(results, name), findings)
        for name, probe in known.items()
        if probe is not None
    }
    return {name: said for name, said in asked.items() if said is not None}


def _said(results: Results, found: Discovery, too_coarse: tuple[str, ...]) -> tuple[str, ...]:
    ways = pd.Series([results.status(job)[0] for job in results.distinct]).value_counts()
    ended = ", ".join(f"{count} {way}" for way, count in ways.items())
    if not found.n_tested:
        tests = "None of them has a p-value, so nothing is said about chance."
    else:
        tests = (
            f"{found.n_tested:,} of them have a p-value against their null and were tested; "
            f"{found.n_passing:,} pass at a false discovery rate of {LEVEL:.0%}, of which about "
            f"{LEVEL * found.n_passing:.0f} or fewer are expected to be false."
        )
    given = _count(found.n_findings, "number")
    said = [f"{_count(len(results.distinct), 'job')}: {ended}. They gave {given}. {tests}"]
    if found.n_tested:
        said += _explained(found)
    if too_coarse:
        said.append(
            f"Nothing that {', '.join(map(shown, too_coarse))} found could have passed: too few draws of the "
            "null for so many tests. Their sections say how many are needed."
        )
    return tuple(said)


def _explained(found: Discovery) -> list[str]:
    """What q, passing, effect and prominence mean."""
    return [
        "q is by Benjamini and Hochberg's procedure over all p-values of this report together, so it "
        "depends on what else was asked. The rate holds if tests are independent or go up and down "
        "together. Whether they do is not known here: heads share a stream, checkpoints a past. Benjamini "
        "and Yekutieli's "
        f"procedure holds whatever the dependence, but asks for p {found.factor:.1f} times smaller, which "
        "ranks among a few hundred draws often cannot reach; so it is not what is shown. "
        f"{found.n_strict:,} pass it too.",
        "To pass means: unlike the null, which each section describes. It does not mean large, nor that "
        "the model uses it. The effect is the distance from the null's mean in standard deviations of the "
        "null; compare it within one measure, since a null that hardly varies makes any distance look "
        "large. So what stands out is ordered by prominence: the distance over the root of the null's "
        "variance plus the mean square distance of all rows of the measure in its model. At 1 it is as far "
        "from chance as its kind usually is there.",
    ]


def _standing_out(results: Results, findings: pd.DataFrame) -> Table:
    """What passes, by prominence; a few of each measure and probe, so that none hides the others."""
    of = passing(findings[findings["model"].isin(results.side_by_side)])
    order = ranked(of[of["prominence"].notna()], by=("prominence",))
    few = at_most(order, PER_MEASURE, ("model", "probe", "measure"))
    chosen = at_most(few, PER_PROBE, ("model", "probe")).head(MOST_STANDING_OUT)
    note = (
        f"{len(chosen)} of {len(of):,} findings that pass, by prominence: at most {PER_PROBE} of each probe of "
        f"each model, {PER_MEASURE} of each measure; no checkpoints before the last. Numbers without a p-value "
        f"cannot pass and are not here. {_counted_rest(of.drop(chosen.index))}"
    )
    return findings_rows(chosen, note if len(of) else "No finding passes.", without=())


def _counted_rest(rest: pd.DataFrame) -> str:
    """What passes and is not listed, by probe and model, most first; "" where all is listed."""
    if not len(rest):
        return ""
    counts = rest.groupby(["probe", "model"], sort=False).size().sort_values(ascending=False)
    named = [
        f"{count:,} of {shown(probe, 40)} of {shown(model, 40)}"
        for (probe, model), count in counts.head(MOST_COUNTED).items()
    ]
    others = int(counts.iloc[MOST_COUNTED:].sum())
    named += [f"{others:,} of others"] if others else []
    return f"Passing too: {', '.join(named)}."


def _section(
    results: Results,
    name: str,
    findings: pd.DataFrame,
    too_coarse: Coarse | None,
    budget: Budget,
) -> Section:
    probe, of = known_probe(name), findings[findings["probe"] == name]
    shown_here = of[of["model"].isin(results.side_by_side)]
    table = main_rows(shown_here, MOST_ROWS)
    tables = results.of_probe(name)
    drawn = spread_over(tables, MOST_DRAWN)
    jobs = [job for job in results.distinct if job.probe == name]
    said = _said_of(probe, jobs[0].version, once(of), len(once(shown_here)))
    if len(drawn) < len(tables):
        said.append(f"Figures show {len(drawn)} of {len(tables):,} models, spread over the list.")
    ended = [(job, *results.status(job)) for job in jobs]
    missing = tuple(
        (way, f"{shown(job.model)}: {way}: {shown(why, 600)}")
        for job, way, why in ended
        if way != "ok"
    )
    return Section(
        name=shown(name),
        title=shown(name) if probe is None else probe.title,
        question="This probe is not known here." if probe is None else probe.question,
        method="" if probe is None else probe.method,
        limits="" if probe is None else probe.limits,
        said=tuple(said),
        coarse="" if too_coarse is None else too_coarse.said,
        pictures=tuple(_pictures(probe, drawn, budget)),
        table=table,
        missing=missing,
    )


def spread_over(tables: dict[str, pd.DataFrame], most: int) -> dict[str, pd.DataFrame]:
    """At most so many of them, the first and the last among them, as far apart in the list as can be."""
    names = list(tables)
    if len(names) <= most:
        return tables
    kept = [names[place * (len(names) - 1) // (most - 1)] for place in range(most)]
    return {name: tables[name] for name in kept}


def _said_of(probe: Any, version: int, of: pd.DataFrame, n_shown: int) -> list[str]:
    n_tested, n_passing = int(of["p"].notna().sum()), len(passing(of))
    said = [
        f"{_count(len(of), 'row')} of {_count(of['model'].nunique(), 'model')}; {n_tested:,} have a p-value, "
        f"{n_passing:,} pass (q ≤ {LEVEL:g})."
    ]
    if n_earlier := len(of) - n_shown:
        said.append(f"{n_earlier:,} rows of earlier checkpoints are in figures and Parquet only.")
    if probe is not None and probe.version != version:
        said.append(
            f"The numbers are of version {number(version)}; the text is of version {probe.version}."
        )
    return said


def _pictures(probe: Any, tables: dict[str, pd.DataFrame], budget: Budget) -> list[Picture]:
    if probe is None or not tables:
        return []
    try:
        return budget.pictures(probe.figures(tables))
    except Exception as error:  # a figure that fails is told of in its place
        said = shown(f"{type(error).__name__}: {error}", 300)
        return [Picture("", note=f"The figures of this probe could not be drawn: {said}")]
