"""The tables of README.md, written from the findings."""

from typing import TYPE_CHECKING

import pandas as pd

from studies.findings import Cell, markdown, number, percent, spread, whole

if TYPE_CHECKING:
    from studies.batch_scaling.study import Findings


def blocks(findings: "Findings") -> dict[str, str]:
    """The text of each marked block, by its name."""
    return {
        "engines": engines(findings.engines),
        "many": many(findings.many),
        "exponents": exponents(findings.exponents),
        "kinds": kinds(findings.kinds),
        "parts": parts(findings.parts),
        "projection": projection(findings.projection),
    }


def engines(table: pd.DataFrame) -> str:
    """Throughput by engine and workers: the fastest run, and the slowest beside it."""
    base = table[(table["engine"] == "local") & (table["workers"] == 1)]["run"].min()
    rows = []
    for (engine, workers), own in table.groupby(["engine", "workers"], sort=False):
        fastest = own.loc[own["run"].idxmin()]
        rows.append(
            {
                "engine": engine,
                "workers": workers,
                "jobs": fastest["jobs"],
                "run": fastest["run"],
                "slowest": own["run"].max(),
                "rate": 60 * fastest["jobs"] / fastest["run"],
                "ratio": base / fastest["run"],
                "share": fastest["in_probes"] / (workers * fastest["run"]),
            }
        )
    cells = {
        "engine": ("engine", str),
        "workers": ("workers", whole),
        "jobs": ("jobs", whole),
        "run": ("seconds, fastest", number(1)),
        "slowest": ("slowest", number(1)),
        "rate": ("jobs a minute", number(0)),
        "ratio": ("times one worker", number(2)),
        "share": ("of workers' time in probes", percent()),
    }
    return markdown(pd.DataFrame(rows), cells)


def many(table: pd.DataFrame) -> str:
    """Batches of tiny models."""
    beside = table["workers"] * table["run"] - table["in_probes"]
    cells = {
        "engine": ("engine", str),
        "models": ("models", whole),
        "jobs": ("jobs", whole),
        "plan": ("plan, s", number(2)),
        "run": ("run, s", number(1)),
        "each": ("ms of a worker a job, beside the probe", number(0)),
        "report": ("report, s", number(1)),
        "findings": ("findings", whole),
        "megabytes": ("report, MB", number(1)),
    }
    return markdown(table.assign(each=1000 * beside / table["jobs"]), cells)


def exponents(table: pd.DataFrame) -> str:
    """How the cost of one job grows."""
    rows = []
    for probe, own in table.groupby("probe", sort=False):
        shown = spread(own.rename(columns={"exponent": "value"}), number(2))
        rows.append(
            {"probe": probe, "r2": own["r2"].iloc[0], **dict(zip(own["size"], shown, strict=True))}
        )
    cells = {
        "probe": ("probe", str),
        "prompts": ("prompts^", str),
        "tokens": ("tokens^", str),
        "r2": ("R² of the fit", number(3)),
    }
    return markdown(pd.DataFrame(rows), cells)


def kinds(table: pd.DataFrame) -> str:
    """Seconds of each probe of one model of each kind, and how many findings that gives."""
    names = list(dict.fromkeys(table["model"]))
    order = list(dict.fromkeys(table["probe"]))
    seconds, found = (
        table.pivot(index="probe", columns="model", values=value).reindex(order)[names]
        for value in ("seconds", "findings")
    )
    wide = seconds.join(found.add_suffix(" n")).reset_index()
    whole_row = pd.DataFrame([{"probe": "all", **wide.drop(columns="probe").sum()}])
    cells: dict[str, tuple[str, Cell]] = {"probe": ("probe", str)}
    cells |= {name: (f"{name}, s", number(2)) for name in names}
    cells |= {f"{name} n": (f"{name}, findings", whole) for name in names}
    return markdown(pd.concat([wide, whole_row], ignore_index=True), cells)


def parts(table: pd.DataFrame) -> str:
    """What a sweep takes beside its probes."""
    named = {
        "loading": "load the model, a job",
        "per_job": "of a worker, a job",
        "keeping": "keep a result, a job",
        "planning": "plan, a job",
        "reporting": "report, a job",
        "report": "report of this model alone",
        "report_fixed": "of ten tiny ones",
    }
    cells: dict[str, tuple[str, Cell]] = {"kind": ("model", str)}
    cells |= {name: (f"{text}, ms", number(1)) for name, text in named.items()}
    return markdown(table.assign(**{name: 1000 * table[name] for name in named}), cells)


def projection(table: pd.DataFrame) -> str:
    """Hours on so many cores."""
    hours = [
        f"{_time(low)} to {_time(high)}"
        for low, high in zip(table["least"], table["most"], strict=True)
    ]
    cells = {
        "kind": ("model", str),
        "models": ("models", whole),
        "jobs": ("jobs", whole),
        "cores": ("cores", whole),
        "work": ("core hours", number(1)),
        "hours": ("takes", str),
        "alone": ("of it in one process, at most", _time),
        "efficiency": ("efficiency", percent()),
    }
    return markdown(table.assign(hours=hours), cells)


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
