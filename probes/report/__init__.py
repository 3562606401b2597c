"""One report of everything that probes found: a page that needs no network, its text, and its numbers.

    report.html         figures and tables; plotly.js is inside
    report.md           the same without figures
    findings.parquet    every finding, with its distance from chance and its q

All of it is made from a store of results alone: neither models nor torch are needed.
"""

from probes.report.writing import write_report

__all__ = ["write_report"]
