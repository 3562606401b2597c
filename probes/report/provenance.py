"""Where a report's numbers come from: versions, seeds, hashes, settings, and the command to repeat it."""

import json
import shlex
from collections import Counter
from typing import Any

from probes.report.results import Results
from probes.report.tables import Column, Table, number, shown

LONG = 400


def command(results: Results) -> str:
    """The command that asks the same of the same models again, whole however long it is."""
    specs = dict.fromkeys(job.spec for job in results.jobs)
    words = ["workbench", "report", "--models", ",".join(map(str, specs))]
    words += ["--probes", ",".join(results.probes)]
    data = dict.fromkeys(str(job.data) for job in results.jobs if job.kind == "data")
    words += ["--data", next(iter(data))] if data else []
    for probe in results.probes:
        for name, value in changed(results, probe).items():
            words += ["--config", f"{probe}.{name}={json.dumps(value)}"]
    return shlex.join(shown(word, len(word)) for word in [*words, "--out", "report"])


def changed(results: Results, probe: str) -> dict[str, Any]:
    """Settings that are not the probe's defaults; all of them, where the probe is not known here."""
    from dataclasses import asdict

    given = config_of(results, probe)
    known = known_probe(probe)
    if known is None:
        return given
    defaults = json.loads(json.dumps(asdict(known.Config())))
    return {name: value for name, value in given.items() if defaults.get(name, ...) != value}


def known_probe(name: str) -> Any:
    """A probe of the registry; None if it has none of that name. A store names no code to be run."""
    from probes.registry import get_probe, probe_names

    return get_probe(name) if name in probe_names() else None


def config_of(results: Results, probe: str) -> dict[str, Any]:
    """The config with which a probe was asked."""
    job = next(job for job in results.jobs if job.probe == probe)
    found: dict[str, Any] = json.loads(job.config)
    return found


def provenance_tables(results: Results) -> tuple[tuple[str, Table], ...]:
    """Models, probes, data and versions, under their titles."""
    models = {job.model: job for job in results.jobs}
    of_models = Table(
        (Column("model"), Column("asked as"), Column("step", True), Column("hash of its files")),
        tuple(
            (shown(label), shown(job.spec, LONG), number(job.step), shown(job.model_hash))
            for label, job in models.items()
        ),
    )
    data = dict.fromkeys((job.data, job.data_hash) for job in results.jobs if job.kind == "data")
    of_data = Table(
        (Column("data"), Column("hash")),
        tuple((shown(name, LONG), shown(code)) for name, code in data),
    )
    of_prompts = _prompts(results)
    return (
        ("Models", of_models),
        ("Data", of_data),
        *((("Prompts", of_prompts),) if of_prompts.rows else ()),
        ("Probes", _probes(results)),
        ("Versions", _versions(results)),
    )


def _prompts(results: Results) -> Table:
    """Which prompts were read, where the data is a list of prompts: not always all of them."""
    counts = Counter(record.note for record in results.records.values() if record.note)
    rows = tuple((shown(note, 2000), number(count)) for note, count in counts.items())
    return Table((Column("prompts read"), Column("jobs", True)), rows)


def _probes(results: Results) -> Table:
    rows = []
    for probe in results.probes:
        jobs = [job for job in results.distinct if job.probe == probe]
        config = config_of(results, probe)
        seconds = sum(results.records[job.key].seconds for job in jobs if job.key in results.tables)
        settings = ", ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
        rows.append(
            (
                shown(probe),
                number(jobs[0].version),
                shown(config.get("seed", "")),
                shown(settings, LONG),
                number(seconds, 3),
            )
        )
    columns = (
        Column("probe"), Column("version", True), Column("seed", True), Column("settings"),
        Column("seconds", True),
    )  # fmt: skip
    return Table(columns, tuple(rows), "Seconds are of all models together, on one thread each.")


def _versions(results: Results) -> Table:
    counts: dict[str, int] = {}
    for key in results.tables:
        versions = results.records[key].made_by.get("versions", {})
        spelled = ", ".join(f"{name} {of}" for name, of in sorted(versions.items()))
        counts[spelled] = counts.get(spelled, 0) + 1
    rows = tuple((shown(text, 2000), number(count)) for text, count in counts.items())
    return Table((Column("versions"), Column("jobs", True)), rows)


def jobs_table(results: Results) -> Table:
    """Jobs without a result, and why."""
    rows = []
    for job in results.distinct:
        status, reason = results.status(job)
        if status != "ok":
            rows.append((shown(job.model), shown(job.probe), status, shown(reason, 2000)))
    note = f"{len(rows)} of {len(results.distinct)} jobs have no result."
    columns = (Column("model"), Column("probe"), Column("how it ended"), Column("why"))
    return Table(columns, tuple(rows), note)
