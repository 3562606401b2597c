"""What the studies share: numbers in a README, tables on disk, bootstrap intervals."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from studies.findings import (
    code,
    markdown,
    number,
    percent,
    read_findings,
    read_numbers,
    save_findings,
    spread,
    visible,
    write_numbers,
)
from studies.intervals import draws, pooled_mean
from workbench.errors import WorkbenchError
from workbench.results import read_table

README = (
    "# A\n\n<!-- numbers: one -->\nold\n<!-- end -->\n\nb\n\n<!-- numbers: two -->\n<!-- end -->\n"
)


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README)
    return path


def test_blocks_are_replaced_and_all_else_stays(readme):
    write_numbers(readme, {"two": "second", "one": "first"})
    assert read_numbers(readme) == {"one": "first", "two": "second"}
    text = readme.read_text()
    write_numbers(readme, {"one": "first", "two": "second"})
    assert readme.read_text() == text
    assert re.sub(r"(?s)(one|two) -->.*?<!-- end", r"\1 --><!-- end", text) == re.sub(
        r"(?s)(one|two) -->.*?<!-- end", r"\1 --><!-- end", README
    )


@pytest.mark.parametrize("blocks", [{"one": ""}, {"one": "", "two": "", "three": ""}])
def test_blocks_that_do_not_fit_are_refused_and_nothing_is_written(readme, blocks):
    with pytest.raises(WorkbenchError, match="'one', 'two'"):
        write_numbers(readme, blocks)
    assert readme.read_text() == README


@dataclass(frozen=True, eq=False)
class Tables:
    short: pd.DataFrame
    long: pd.DataFrame


def test_tables_come_back_to_six_digits_with_their_provenance(tmp_path):
    rng = np.random.default_rng(0)
    short = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, np.nan], "n": [1, 2]})
    long = pd.DataFrame({"value": rng.normal(size=200), "token": ["\n"] * 200})
    save_findings(Tables(short, long), tmp_path, {"study": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.parquet", "short.json"]
    found = read_findings(Tables, tmp_path)
    assert read_table(tmp_path / "short.json")[1] == {"study": "test"}
    assert found.short["value"].iloc[0] == 0.333333 and np.isnan(found.short["value"].iloc[1])
    np.testing.assert_allclose(found.long["value"], long["value"], rtol=1e-5)
    assert list(found.long["token"]) == ["\n"] * 200


def test_a_table_is_written_as_its_cells_say():
    rows = pd.DataFrame({"a": [0.5, np.nan], "low": [0.25, np.nan], "high": [1.0, np.nan]})
    rows = rows.assign(shown=spread(rows.rename(columns={"a": "value"}), number(2, sign=True)))
    cells = {"a": ("share", percent(1)), "shown": ("both", str)}
    assert markdown(rows, cells).splitlines() == [
        "| share | both |",
        "| --- | --- |",
        "| 50.0 % | +0.50 [+0.25, +1.00] |",
        "|  |  |",
    ]
    assert number(1)(-2.04) == "−2.0" and number(1)(-0.04) == "0.0"


def test_spaces_line_ends_and_bars_are_seen():
    assert visible("  a\n") == "··a↵"
    assert code("a|b") == "`a\\|b`"


def test_a_pooled_mean_resamples_whole_units():
    sums, counts = np.array([1.0, 9.0, 4.0]), np.array([1.0, 3.0, 4.0])
    value, low, high = pooled_mean(sums, counts, seed=3)
    assert value == 14 / 8
    slow = []
    for taken in draws(3, 3):
        held = [unit for unit in range(3) for _ in range(int(taken[unit]))]
        assert len(held) == 3
        slow.append(sum(sums[held]) / sum(counts[held]))
    assert low == pytest.approx(np.quantile(slow, 0.025))
    assert high == pytest.approx(np.quantile(slow, 0.975))


def test_an_interval_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).normal(size=400)
    _, low, high = pooled_mean(values, np.ones(400), seed=0)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
