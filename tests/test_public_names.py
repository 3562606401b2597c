import pytest

import workbench


def test_the_public_names_are_sorted_and_complete():
    assert workbench.__all__ == sorted(workbench.__all__)
    assert set(workbench.__all__) == set(workbench._HOME)


@pytest.mark.parametrize("name", workbench.__all__)
def test_every_public_name_leads_to_something_documented(name):
    assert getattr(workbench, name).__doc__


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(AttributeError, match="attention_view"):
        workbench.nonsense  # noqa: B018
