"""What a report says of its own origin: the whole command, and which prompts were read."""

from dataclasses import replace

from probes.contract import findings_table
from probes.jobs import Record
from probes.report.provenance import command, provenance_tables
from probes.report.results import Results
from tests.probes.stored import job, rows_of, store_of


def test_the_command_is_never_cut(tmp_path):
    """Of so many models that their names alone fill pages."""
    jobs = [job(f"runs/{'m' * 40}-{number:04d}") for number in range(300)]
    results = Results.read(store_of(tmp_path, [(one, rows_of()) for one in jobs]))
    text = command(results)
    assert len(text) > 14_000 and "…" not in text
    assert all(one.spec in text for one in jobs) and text.endswith("--out report")


def test_prompts_that_were_left_out_are_told(tmp_path):
    one, other = job("a"), job("b")
    store = store_of(tmp_path, [(one, rows_of()), (other, rows_of())])
    assert "Prompts" not in dict(provenance_tables(Results.read(store)))
    note = "list: 3 of 4 prompts read at 9 tokens; 1 left out as shorter"
    for each in (one, other):
        store.save(replace(Record.of(each, "ok"), note=note), findings_table(rows_of()))
    rows = dict(provenance_tables(Results.read(store)))["Prompts"].rows
    assert rows == ((note, "2"),)
