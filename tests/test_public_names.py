import importlib
import pkgutil
import subprocess
import sys

import pytest

import workbench


def test_the_public_names_are_sorted_and_complete():
    assert workbench.__all__ == sorted(workbench.__all__)
    assert set(workbench.__all__) == set(workbench._HOME)


@pytest.mark.parametrize("name", workbench.__all__)
def test_every_public_name_leads_to_something_documented(name):
    assert getattr(workbench, name).__doc__


def test_no_public_name_is_also_a_module():
    """Importing a module would put it in the place of the name."""
    modules = {module.name for module in pkgutil.iter_modules(workbench.__path__)}
    assert not modules & set(workbench.__all__)


def test_names_stay_what_they_are_once_everything_is_imported():
    for module in pkgutil.walk_packages(workbench.__path__, "workbench."):
        importlib.import_module(module.name)
    for name in workbench.__all__:
        assert callable(getattr(workbench, name)), name


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(AttributeError, match="attention_view"):
        workbench.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, workbench; print([m for m in ('torch', 'pandas', 'dash') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
