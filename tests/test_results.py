from importlib.metadata import version

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from workbench.errors import WorkbenchError
from workbench.results import is_whole_table, provenance, read_table, save_table
from workbench.writing import whole_file

TABLE = pd.DataFrame({"layer": [0, 1], "token": [" the", "</script>"], "value": [0.25, -1.5]})


@pytest.mark.parametrize("name", ["a.parquet", "a.json"])
def test_a_table_and_its_provenance_survive_being_written(tmp_path, name):
    made_by = provenance(model="m", seed=3)
    table, read = read_table(save_table(TABLE, tmp_path / "new" / name, made_by))
    assert_frame_equal(table, TABLE)
    assert read == made_by
    assert read["versions"]["torch"]
    # Fits, projections, tests, Q, tables, queries and figures: none of them may change unseen.
    computing = ("scikit-learn", "scipy", "statsmodels", "graspologic-native", "pandas", "duckdb")
    assert {*computing, "pyarrow", "plotly"} <= set(read["versions"])
    assert read["versions"]["scipy"] == version("scipy") and provenance() == provenance()


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("workbench.results.COMPUTING", ("torch", "no-such-package-at-all"))
    assert set(provenance()["versions"]) == {"python", "torch"}


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_a_table_that_was_cut_off_is_not_whole(tmp_path, left):
    path = save_table(TABLE, tmp_path / "a.parquet", {})
    assert is_whole_table(path)
    path.write_bytes(path.read_bytes()[:left])
    assert not is_whole_table(path) and not is_whole_table(tmp_path / "none.parquet")


def test_a_table_of_others_is_not_whole(tmp_path):
    TABLE.to_parquet(tmp_path / "a.parquet")
    assert not is_whole_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.parquet", "a.json"])
def test_the_smallest_numbers_survive_to_the_last_bit(tmp_path, name):
    values = [1.2346e-12, 0.12345678901234567, 5e-324, -0.0]
    table, _ = read_table(save_table(pd.DataFrame({"value": values}), tmp_path / name, {}))
    assert table["value"].tolist() == values


def test_a_missing_value_is_null(tmp_path):
    path = save_table(pd.DataFrame({"low": [float("nan"), 1.0]}), tmp_path / "a.json", {})
    assert '"low": null' in path.read_text() and "NaN" not in path.read_text()


def test_an_unknown_file_type_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match=r"\.parquet or \.json"):
        save_table(TABLE, tmp_path / "a.pkl", {})


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"PAR1garbage", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["a.parquet", "a.json"])
def test_a_broken_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WorkbenchError, match="not a table"):
        read_table(tmp_path / name)


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as scratch:
        scratch.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.json"]
