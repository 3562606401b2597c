"""The house rules: which part may import which, the doors to heavy libraries, and the size budget."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("workbench", "probes", "app", "studies")
FILES = [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
MAY_IMPORT = {
    "workbench": {"workbench"},
    "probes": {"workbench", "probes"},
    "app": {"workbench", "probes", "app"},
    "studies": {"workbench", "probes", "studies"},
}
DOORS = {
    "dash": ("app/",),
    "dash_mantine_components": ("app/",),
    "plotly": ("workbench/figures/", "probes/pictures/", "probes/report", "app/"),
}


def imports(path: Path) -> set[str]:
    """Every module that a file names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_keeps_to_its_part_its_doors_and_its_size(path):
    place, names = path.relative_to(ROOT).as_posix(), imports(path)
    roots = {name.split(".")[0] for name in names}
    assert roots & set(PARTS) <= MAY_IMPORT[place.split("/")[0]]
    for library, rooms in DOORS.items():
        assert library not in roots or place.startswith(rooms), f"{library} belongs in {rooms}"
    if "transformer_lens.model_bridge" in names or "transformer_lens.TransformerBridge" in names:
        assert place == "workbench/models/bridge.py"
    assert "pickle" not in roots
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", ["workbench", "app.cli", "workbench.models"])
def test_importing_the_command_and_the_names_loads_nothing_heavy(module):
    heavy = "('torch', 'transformers', 'transformer_lens', 'plotly', 'dash', 'pandas', 'scipy')"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
