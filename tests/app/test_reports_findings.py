"""Rows of a report asked by DuckDB: sorted and filtered as by hand, and hostile requests refused."""

import json
import math

import numpy as np
import pytest

from app.report_desk import ReportDesk
from app.report_filters import (
    COLUMNS,
    TEXTS,
    order_of,
    read_filter,
    read_request,
    read_sorts,
    where_of,
)
from app.report_findings import LARGEST, MEAN, Findings
from app.report_state import ASKED, FIND, SHOWN, read_fields
from probes.contract import findings_table
from probes.jobs import Job, Record
from probes.store import Store
from workbench.errors import ConfigError, WorkbenchError

HOSTILE = (
    "value; DROP TABLE findings", '"', 'value"', "row", "", "rowid", None, 1, "1=1", "VALUE", "a" * 9999,
    "\ud800",
)  # fmt: skip


def job(model, probe="p"):
    return Job(model, "attn-2l", None, f"hash of {model}", probe, "m", 1, "weights", "{}", "", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two models with rows of heads, of places in heads, and of none."""
    root = tmp_path_factory.mktemp("reports")
    store, rng = Store(root / "one" / "store"), np.random.default_rng(0)
    jobs = [job("a"), job("b"), job("c", "not asked")]
    for one in jobs[:2]:
        rows = [
            {"measure": "size", "layer": layer, "head": head, "value": float(rng.normal())}
            for layer in (0, 1) for head in (0, 1, 10)
        ]  # fmt: skip
        rows += [
            {"measure": "link", "layer": 0, "head": 0, "item": item, "value": value, "p": 0.5}
            for item, value in (("x", 1.0), ("y", -3.0), ("Z%_'", math.nan))
        ]
        rows.append({"measure": "whole", "value": 7.0})
        store.save(Record.of(one, "ok"), findings_table(rows))
    store.write_plan(jobs)
    return root


@pytest.fixture(scope="module")
def found(root):
    return ReportDesk(root).findings("one")


def rows_of(found, filters=None, sorts=(), first=0, end=100):
    sorting = [{"colId": column, "sort": way} for column, way in sorts]
    request = {"startRow": first, "endRow": end, "filterModel": filters or {}, "sortModel": sorting}
    return found.block(read_request(request))


def test_blocks_of_a_sorted_table_are_the_whole_sorted_by_hand(found):
    everything, total = rows_of(found)
    assert total == len(everything) == 20 and list(everything[0]) == list(COLUMNS)
    number = [row["value"] for row in everything]
    assert number.count(None) == 2  # NaN is nothing
    wanted = [*sorted((v for v in number if v is not None), reverse=True), None, None]
    blocks = [
        rows_of(found, sorts=[("value", "desc")], first=at, end=at + 7)[0] for at in (0, 7, 14)
    ]
    assert [row["value"] for block in blocks for row in block] == wanted
    two = rows_of(found, sorts=[("measure", "asc"), ("head", "desc")])[0]
    plain = [(row["measure"], -1 if row["head"] is None else row["head"]) for row in two]
    assert plain == sorted(plain, key=lambda pair: (pair[0], -pair[1]))


@pytest.mark.parametrize(
    ("filters", "keeps"),
    [
        ({"measure": {"type": "contains", "filter": "IN"}}, lambda r: "in" in r["measure"]),
        ({"measure": {"type": "notEqual", "filter": "link"}}, lambda r: r["measure"] != "link"),
        ({"item": {"type": "equals", "filter": "z%_'"}}, lambda r: r["item"] == "Z%_'"),
        ({"item": {"type": "startsWith", "filter": "%"}}, lambda r: False),
        ({"item": {"type": "blank"}}, lambda r: r["item"] == ""),
        ({"head": {"type": "notBlank"}}, lambda r: r["head"] is not None),
        ({"value": {"type": "greaterThan", "filter": 0}}, lambda r: (r["value"] or 0) > 0),
        ({"value": {"type": "inRange", "filter": -4, "filterTo": 0}}, lambda r: -4 < (r["value"] or 1) < 0),
        (
            {"head": {"operator": "OR", "conditions": [{"type": "equals", "filter": n} for n in (1, 10)]},
             "model": {"type": "endsWith", "filter": "B"}},
            lambda r: r["head"] in (1, 10) and r["model"] == "b",
        ),
    ],
)  # fmt: skip
def test_a_filter_keeps_what_a_loop_keeps(found, filters, keeps):
    assert rows_of(found, filters) == (
        wanted := [r for r in rows_of(found)[0] if keeps(r)],
        len(wanted),
    )
    text = json.dumps(filters)
    assert read_filter(text) == filters


def test_a_table_of_heads_holds_each_number_once(found):
    measures = {one.name: one for one in found.measures()}
    assert set(measures) == {"size", "link"} and measures["size"].places == ("|",)
    size = found.pivot(measures["size"], "|")
    assert size.heads == ("0.0", "0.1", "0.10", "1.0", "1.1", "1.10") and size.models == ("a", "b")
    everything = rows_of(found, {"measure": {"type": "equals", "filter": "size"}})[0]
    wanted = {(f"{r['layer']}.{r['head']}", r["model"]): r["value"] for r in everything}
    assert {(r.head, r.model): r.value for r in size.table().itertuples()} == wanted
    link = measures["link"]
    for of, value in ((LARGEST, -3.0), (MEAN, -1.0), ("|x", 1.0)):
        assert found.pivot(link, of).values.tolist() == [[value, value]]
    assert found.pivot(link, "|' OR 1=1 --").heads == ()


def test_a_profile_holds_every_measure_of_one_model(found):
    assert found.models() == ["a", "b"]
    profile = found.profile("b", LARGEST)
    assert set(measure.name for measure in profile.measures) <= {"size", "link"}
    for place, measure in enumerate(profile.measures):
        pivot = found.pivot(measure, measure.places[0] if len(measure.places) == 1 else LARGEST)
        column = pivot.models.index("b")
        wanted = dict(zip(pivot.heads, pivot.values[:, column], strict=True))
        for head, value in zip(profile.heads, profile.values[:, place], strict=True):
            assert (np.isnan(value) and np.isnan(wanted.get(head, np.nan))) or value == wanted[head]
    means = found.profile("a", MEAN)
    names = [measure.name for measure in means.measures]
    assert names == ["size", "link"] and -1.0 in means.values[:, 1]
    assert found.profile("c' OR 1=1 --", MEAN).heads == ()


@pytest.mark.parametrize("column", HOSTILE)
def test_columns_that_are_none_never_reach_a_query(column):
    for read in (
        lambda: read_sorts([{"colId": column, "sort": "asc"}]),
        lambda: where_of({column: {"type": "blank"}}),
    ):
        with pytest.raises(ConfigError, match=r"no column .*: there are model, probe"):
            read()


@pytest.mark.parametrize(
    "request_",
    [
        None, [], "x", {}, {"startRow": 0}, {"startRow": 0, "endRow": 0}, {"startRow": -1, "endRow": 5},
        {"startRow": 0, "endRow": 10**6}, {"startRow": True, "endRow": 9}, {"startRow": 0.0, "endRow": 9.0},
        *({"startRow": 0, "endRow": 9, "sortModel": bad} for bad in (
            5, "value", "value:up", [1], [{"colId": "p", "sort": "asc; --"}],
            [{"colId": "p", "sort": "asc"}] * 9, [{"colId": ["p"], "sort": "asc"}],
        )),
        *({"startRow": 0, "endRow": 9, "filterModel": bad} for bad in (
            [1], "x", {"value": 1}, {"value": {"type": "equals"}},
            {"value": {"type": "equals", "filter": "1 OR 1"}},
            {"value": {"type": "equals", "filter": math.inf}}, {"value": {"type": "equals", "filter": True}},
            {"value": {"type": "equals", "filter": 10**400}}, {"value": {"type": "contains", "filter": "1"}},
            {"measure": {"type": "regexp", "filter": "x"}}, {"measure": {"type": [], "filter": "x"}},
            *({"measure": {"type": "contains", "filter": text}} for text in ("x" * 201, "\ud800", 5, None)),
            {"measure": {"operator": "XOR", "conditions": [{"type": "blank"}]}}, {"p": {"operator": "AND"}},
            {"p": {"operator": "AND", "conditions": []}}, {"p": {"operator": "AND", "conditions": "ab"}},
            {"p": {"operator": "AND", "conditions": [{"operator": "AND", "conditions": []}]}},
            {"p": {"operator": "AND", "conditions": [{"type": "equals", "filter": 1}] * 999}},
        )),
    ],
)  # fmt: skip
def test_a_request_that_no_grid_sends_is_refused(found, request_):
    with pytest.raises(ConfigError):
        read_request(request_)
    assert rows_of(found)[1] == 20


def test_values_are_bound_and_columns_quoted():
    where, values = where_of({"measure": {"type": "contains", "filter": "x'); DROP"}})
    assert where == 'contains(lower("measure"), ?)' and values == ("x'); drop",)
    assert order_of((("p", "desc"),)) == '"p" DESC NULLS LAST, "row"'
    assert set(TEXTS) < set(COLUMNS)


@pytest.mark.parametrize(
    "given", ["{", "[" * 9000, "1", '{"x": 1}', "null", '{"p": {"type": "x"}}', 3, [], "\ud800"]
)
def test_an_address_that_cannot_be_meant_leaves_a_complaint_and_the_default(given):  # fmt: skip
    state, said = read_fields(SHOWN, {"where": given, "order": "value:desc", "of": given})
    assert state["where"] == "" and said and state["order"] == "value:desc"
    for fields in (SHOWN, ASKED, FIND):
        assert read_fields(fields, "x")[1] == ["the address could not be read"]


def test_a_broken_table_takes_nothing_with_it_but_itself(root, tmp_path):
    import shutil

    shutil.copytree(root / "one", tmp_path / "one")
    (tmp_path / "one" / "store" / f"{job('a').key}.parquet").write_bytes(b"PAR1 no more")
    found = ReportDesk(tmp_path).findings("one")
    assert found.n_rows == 10 and len(found.broken) == 1 and "broken" in found.broken[0]
    (tmp_path / "one" / "store" / "plan.json").write_text('{"jobs": [{"model": []}]}')
    with pytest.raises(WorkbenchError, match="no job"):
        ReportDesk(tmp_path).findings("one")


def test_tables_that_would_not_fit_are_refused_unread(root, monkeypatch):
    monkeypatch.setattr("app.report_findings.MAX_BYTES", 10)
    with pytest.raises(WorkbenchError, match="workbench query"):
        Findings.read(root / "one" / "store")
