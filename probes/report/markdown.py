"""The report as Markdown: everything but the figures; what comes from outside is escaped, and so stays text."""

import re
from collections.abc import Iterator

from probes.report.content import Content, Section
from probes.report.overview import CAPTION
from probes.report.tables import Table, shown

_MARKS = re.compile(r"([\\`*_\[\]<>|~&$#!])")


def markdown(content: Content) -> str:
    """The whole file."""
    return "\n\n".join(_parts(content)) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _MARKS.sub(r"\\\1", text)


def _parts(content: Content) -> Iterator[str]:
    yield f"# {plain(content.title)}"
    yield from map(plain, content.said)
    yield "## What stands out"
    yield from _table(content.standing_out)
    yield "## Models side by side"
    yield from _table(content.models)
    if content.training:
        yield "## Over training"
        yield plain(f"The figure is in report.html. {CAPTION}")
    for section in content.sections:
        yield from _section(section)
    if content.cards:
        yield "## Heads"
    for label, cards in content.cards.items():
        yield f"### {plain(shown(label))}"
        for card in cards:
            yield f"**{card.head}**: {plain(card.said)}"
            yield from _table(card.table)
    if content.jobs.rows:
        yield "## Without a result"
        yield from _table(content.jobs)
    yield "## Provenance"
    yield f"    {content.command}"
    for name, table in content.provenance:
        yield f"### {name}"
        yield from _table(table)


def _section(section: Section) -> Iterator[str]:
    yield f"## {plain(section.title)} ({plain(section.name)})"
    yield plain(section.question)
    yield plain(" ".join(section.said))
    if section.coarse:
        yield f"**{plain(section.coarse)}**"
    yield from (f"- {plain(text)}" for _, text in section.missing)
    if section.method:
        # Written by the probe's author, in Markdown.
        yield from ("### Method", section.method, "### Limits", section.limits)
    yield from (plain(picture.note) for picture in section.pictures if not picture.json)
    yield from _table(section.table)


def _table(table: Table) -> Iterator[str]:
    if table.note:
        yield plain(table.note)
    if table.rows:
        lines = [_line([plain(column.name) for column in table.columns])]
        lines.append(_line(["--:" if column.is_number else "---" for column in table.columns]))
        lines += [_line([plain(cell) for cell in row]) for row in table.rows]
        yield "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
