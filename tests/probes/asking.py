"""Asking one probe of a model in a test, and picking rows of what it says."""

from probes.configs import make_config
from probes.contract import check_table
from probes.facts import facts_of
from probes.registry import get_probe


def answer(name, model, data, **settings):
    """The findings, as the contract wants them, of a probe that does not refuse the model."""
    probe = get_probe(name)
    assert not probe.refuses(facts_of(model))
    table = probe.run(model, data, make_config(probe, settings))
    check_table(table, name)
    return table


def of(table, measure, **where):
    """The rows of one measure, and of some values of other columns."""
    rows = table[table["measure"] == measure]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows
