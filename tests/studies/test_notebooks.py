"""Notebooks of the studies: short, without outputs, and every cell runs."""

import ast
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
from nbclient import NotebookClient  # noqa: E402  # comes with nbformat

STUDIES = Path(__file__).parents[2] / "studies"
NOTEBOOKS = sorted(STUDIES.glob("*/study.ipynb"))


def test_every_study_has_a_notebook():
    folders = {path.parent for path in STUDIES.glob("*/study.py")}
    assert folders == {path.parent for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_a_notebook_is_short_and_keeps_no_outputs_and_no_definitions(path):
    cells = nbformat.read(path, as_version=4).cells
    assert 10 <= len(cells) <= 18
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
            assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_a_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=180,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    shown = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(shown) >= 6
