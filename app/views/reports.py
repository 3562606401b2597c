"""What the reports page shows of reports, from plain values: the list, how one stands, its files."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import dash_mantine_components as dmc
from dash import html

from app.components import alert, aria, attributes
from app.report_desk import Row
from app.report_folder import PRODUCTS, ReportFolder
from app.views.training import section, spell_time
from workbench.figures.tokens import visible

MAX_LISTED = 200
SAID = {
    "queued": "starting",
    "running": "running",
    "writing": "writing the report",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
    "finished": "finished",
    "failed": "failed",
    "broken": "cannot be read",
}
# The dots of the training page's list.
DOT = {"writing": "running"}
EXPLAINED = {
    "cancelled": "It was stopped. What was found is kept and reported: resume it, and only the rest is asked.",
}
FILES = {"report.html": "Open the report", "report.md": "Markdown", "findings.parquet": "Parquet"}


def labels(models: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(models[:3])
    return f"{shown} and {len(models) - 3:,} more" if len(models) > 3 else shown


def report_list(rows: Sequence[Row], current: str, find: str) -> list[Any]:
    """Links to the reports that fit the words of `find`, newest first."""
    if not rows:
        return [html.Div("No reports yet.", className="hint")]
    fitting = [row for row in rows if row.fits(find)]
    if not fitting:
        return [html.Div(f"None of {len(rows):,} reports fits.", className="hint")]
    more = len(fitting) - MAX_LISTED
    rest = [html.Div(f"{more:,} older ones: filter by name.", className="hint")] if more > 0 else []
    return [_entry(row, row.name == current, find) for row in fitting[:MAX_LISTED]] + rest


def _entry(row: Row, is_current: bool, find: str) -> html.A:
    probes = f"{len(row.probes)} probes" if len(row.probes) != 1 else row.probes[0]
    return html.A(
        [
            html.Span(visible_text(row.title), className="run-name", title=visible_text(row.name)),
            html.Span(
                [html.Span(className=f"run-dot {DOT.get(row.state, row.state)}"), SAID[row.state]],
                className="run-state",
            ),
            html.Span(_counts(row), className="run-numbers"),
            html.Span(row.date, className="run-numbers run-loss"),
            html.Span(
                visible_text(f"{labels(row.models)}: {probes}") if row.models else "",
                className="report-asks",
            ),
        ],
        href=report_address(row.name, find),
        className="run-link report-link" + (" chosen" if is_current else ""),
        **(attributes("aria-current", "true") if is_current else {}),
    )


def _counts(row: Row) -> str:
    told = row.standing
    if not told.jobs:
        return ""
    done, jobs = told.asked
    counts = f"{done}/{jobs}" if done < jobs else f"{jobs} jobs"
    return counts + (f", {told.failed} failed" if told.failed else "")


def report_address(name: str, find: str = "") -> str:
    """The address of a report."""
    return "/reports?" + urlencode({"report": name} | ({"find": find} if find else {}))


def standing(row: Row) -> list[Any]:
    """How a report stands: jobs in words and as a bar, what runs, and what went wrong."""
    told = row.standing
    done, jobs = told.asked
    parts = [f"{done:,} of {jobs:,} jobs" if told.jobs else "working out what to ask"]
    parts += [f"{told.failed:,} failed"] if told.failed else []
    applies = "does not apply" if told.refused == 1 else "do not apply"
    parts += [f"{told.refused:,} {applies}"] if told.refused else []
    if row.state == "running" and told.jobs:
        parts.append(f"about {spell_time(told.remaining)} left")
    shown = SAID[row.state] if told.jobs or row.state != "running" else "starting"
    # Without a value the bar moves to and fro.
    is_known = row.state != "queued" and bool(told.jobs or not row.is_going)
    value: dict[str, Any] = {"value": f"{_share(row):.4f}"} if is_known else {}
    said: list[Any] = [
        html.Div(
            [
                html.Span(
                    [html.Span(className=f"run-dot {DOT.get(row.state, row.state)}"), shown],
                    className="run-badge",
                    id="report-state-word",
                ),
                html.Span("  ·  ".join(parts), className="fact", id="report-numbers"),
            ],
            className="run-standing",
        ),
        html.Progress(max="1", className="run-bar", **aria("How far the report is"), **value),
    ]
    if told.running:
        lines = [html.Div(visible_text(line)) for line in told.running[:8]]
        said.append(html.Div(lines, className="hint report-running", id="report-running"))
    if row.state in ("failed", "broken"):
        said.append(alert(told.message or "it failed without saying why: see worker.log"))
    elif row.state == "interrupted":
        said.append(html.Div(f"Interrupted: {told.message}.", className="hint"))
    elif row.state in EXPLAINED:
        said.append(html.Div(EXPLAINED[row.state], className="hint"))
    return said


def _share(row: Row) -> float:
    told = row.standing
    if row.state == "finished":
        return 1.0
    n_done, n_jobs = told.asked
    done = n_done / n_jobs if n_jobs else 0.0
    return max(done, min(1.0, told.share)) if row.is_going else done


def files(folder: ReportFolder) -> list[Any]:
    """Links to what has been written."""
    there = [name for name in PRODUCTS if folder.product(name) is not None]
    if not there:
        said = "The report is written once all jobs have ended, or when it is cancelled after some have."
        return [html.Span(said, className="fact")]
    return [_file_link(folder, name) for name in there]


def _file_link(folder: ReportFolder, name: str) -> html.A:
    is_page = name == "report.html"
    apart: dict[str, Any] = {"target": "_blank", "rel": "noopener"} if is_page else {"download": ""}
    return html.A(
        FILES[name],
        href=f"/api/reports/{quote(folder.name, safe='')}/{name}",
        className="plain-button" + (" report-open" if is_page else ""),
        **apart,
    )


def buttons() -> list[html.Button]:
    """What can be done to a report; which of them, says `which_buttons`."""
    return [
        html.Button(
            word.capitalize(),
            id=f"report-{word}",
            n_clicks=0,
            className="plain-button",
            hidden=True,
        )
        for word in ("cancel", "resume")
    ]


def which_buttons(row: Row) -> tuple[bool, bool]:
    """Whether cancel and resume are hidden."""
    return not (row.is_ours and row.is_going), not (
        row.is_ours and row.state != "broken" and row.standing.can_resume
    )


def head(row: Row, folder: ReportFolder) -> html.Section:
    """A report's title, state and files."""
    asked = f"{labels(row.models)}; {len(row.probes)} probes; data: {row.data or 'none'}"
    return html.Section(
        [
            html.Header(
                [
                    html.H2(
                        visible_text(row.title),
                        id="report-head-title",
                        title=visible_text(f"folder {folder.path}"),
                    ),
                    html.Div(buttons(), className="panel-actions"),
                ]
            ),
            html.P(visible_text(asked), className="explains", title=", ".join(row.probes)),
            html.Div(standing(row), id="report-standing", role="status"),
            html.Div(id="report-said"),
            html.Div(files(folder), id="report-files", className="run-links"),
            # Pressed by assets/a-network.js once a server that was gone answers again.
            html.Button(
                "Ask again", id="report-retry", n_clicks=0, hidden=True, className="plain-button"
            ),
        ],
        id="report-head",
        className="panel",
        **attributes("aria-labelledby", "report-head-title"),
    )


def lost(name: str, why: str) -> html.Section:
    """A report that cannot be shown, and why."""
    shown = name[:80].encode("utf-8", "replace").decode()
    return section("report-lost", f"Report {visible_text(shown)}", "", alert(why))


def find_box(value: str) -> dmc.TextInput:
    """Words that a report must have to be listed."""
    label = "Filter reports by name, model, probe, date or state"
    return dmc.TextInput(
        id="reports-find",
        value=value,
        placeholder="Filter: name, model, probe, state",
        debounce=300,
        size="xs",
        attributes={"input": {"aria-label": label, "maxLength": 120, "type": "search"}},
    )


def visible_text(text: str) -> str:
    """Text with spaces as they are, and signs for what the eye cannot see."""
    safe = text.encode("utf-8", "replace").decode()
    return " ".join(visible(word) for word in safe.split(" ") if word) if safe.strip() else ""
