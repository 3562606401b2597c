"""Tidy tables written with their provenance: Parquet, or JSON where people read it. Never pickle."""

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError
from workbench.writing import whole_file

FORMATS = (".parquet", ".json")
_METADATA_KEY = b"workbench"
# Whatever a number can depend on, and what draws it.
COMPUTING = (
    "interp-workbench", "torch", "transformer-lens", "transformers", "tokenizers", "numpy", "scipy",
    "scikit-learn", "statsmodels", "graspologic-native", "pandas", "pyarrow", "duckdb", "plotly",
)  # fmt: skip


def provenance(**of_result: Any) -> dict[str, Any]:
    """What made a result: the given facts beside the versions of what computed it, as far as installed."""
    found = {name: _installed(name) for name in COMPUTING}
    versions = {name: number for name, number in found.items() if number is not None}
    return {**of_result, "versions": {"python": platform.python_version()} | versions}


@cache
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def model_hash(model: Any) -> str:
    """A hash of every weight by name: equal for equal models, on every machine; 16 hexadecimal digits.

    Args:
        model: anything with `parameters()`, as every model has.
    """
    import torch  # tables are read without it

    digest = hashlib.blake2b(digest_size=8)
    for weight in model.parameters():
        digest.update(f"{tuple(weight.shape)} {weight.dtype}".encode())
        plain = weight.detach().cpu().contiguous()
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_table(table: pd.DataFrame, path: str | Path, made_by: dict[str, Any]) -> Path:
    """Write a table with its provenance; the file appears whole or not at all.

    Raises:
        WorkbenchError: a file type that is not written, or a folder that cannot be written to.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise WorkbenchError(
            f"cannot write {path.name!r}: tables are written as {' or '.join(FORMATS)}"
        )
    with whole_file(path) as scratch:
        if path.suffix == ".json":
            # pandas' own JSON rounds to ten decimals, where small attention would become zero.
            plain = table.astype(object).where(table.notna(), None)
            whole = {"provenance": made_by, "rows": plain.to_dict("records")}
            text = json.dumps(whole, ensure_ascii=False, indent=1, allow_nan=False)
            scratch.write_text(text, encoding="utf-8")
        else:
            _write_parquet(table, scratch, made_by)
    return path


def _write_parquet(table: pd.DataFrame, path: Path, made_by: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), _METADATA_KEY: json.dumps(made_by).encode()}
    pq.write_table(arrow.replace_schema_metadata(metadata), path)


def is_whole_table(path: Path) -> bool:
    """Whether a Parquet file has an end that reads as `save_table` wrote it; its rows are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _METADATA_KEY in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def read_table(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its provenance, as `save_table` wrote them.

    Raises:
        WorkbenchError: no such file, or one that `save_table` did not write.
    """
    path = Path(path)
    if path.suffix not in FORMATS or not path.is_file():
        raise WorkbenchError(f"no table at {path}: tables are {' or '.join(FORMATS)} files")
    try:
        if path.suffix == ".json":
            whole = json.loads(path.read_text(encoding="utf-8"))
            return pd.DataFrame(whole["rows"]), whole["provenance"]
        import pyarrow.parquet as pq

        arrow = pq.read_table(path)
        return arrow.to_pandas(), json.loads((arrow.schema.metadata or {})[_METADATA_KEY])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WorkbenchError(f"{path} is not a table of the workbench: {error}") from error
