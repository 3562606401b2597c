"""How a fresh run is compared with the numbers that are kept."""

import numpy as np
import pandas as pd


def assert_same_numbers(
    fresh: pd.DataFrame, kept: pd.DataFrame, keys: list[str], *, atol: float = 5e-4
) -> None:
    """Every row of a fresh run, which may cover less, has the kept numbers as finely as they are printed."""
    assert list(fresh.columns) == list(kept.columns)
    assert len(fresh) and not fresh.duplicated(keys).any()
    both = fresh.merge(kept, on=keys, suffixes=("", "_kept"), validate="one_to_one")
    assert len(both) == len(fresh)
    for column in set(fresh.columns) - set(keys):
        new, old = both[column], both[f"{column}_kept"]
        if pd.api.types.is_numeric_dtype(new):
            old = old.astype(float)
            np.testing.assert_allclose(new.astype(float), old, rtol=2e-3, atol=atol, err_msg=column)
        else:
            assert list(new.astype(str)) == list(old.astype(str)), column
