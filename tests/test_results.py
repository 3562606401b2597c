import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from workbench.errors import WorkbenchError
from workbench.results import provenance, read_table, save_table
from workbench.writing import whole_file

TABLE = pd.DataFrame({"layer": [0, 1], "token": [" the", "</script>"], "value": [0.25, -1.5]})


@pytest.mark.parametrize("name", ["a.parquet", "a.json"])
def test_a_table_and_its_provenance_survive_being_written(tmp_path, name):
    made_by = provenance(model="m", seed=3)
    table, read = read_table(save_table(TABLE, tmp_path / "new" / name, made_by))
    assert_frame_equal(table, TABLE)
    assert read == made_by
    assert read["versions"]["torch"]


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
