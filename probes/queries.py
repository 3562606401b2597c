"""SQL over tables in memory, for reading only: one SELECT, no files, no network, no settings."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.errors import WorkbenchError

MAX_SQL_CHARS = 100_000
MAX_ROWS = 1_000_000
_SETTINGS = {
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": "4GB",
    "threads": 2,
    "temp_directory": "",
    # The two that forbid files, and any change of these settings: last.
    "enable_external_access": False,
    "lock_configuration": True,
}


def answer(sql: str, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What a SELECT over these tables gives.

    Raises:
        WorkbenchError: anything but one SELECT, or one that cannot be answered.
    """
    import duckdb

    if not isinstance(sql, str) or not sql.strip() or len(sql) > MAX_SQL_CHARS:
        raise WorkbenchError(f"a query has 1 to {MAX_SQL_CHARS:,} characters of SQL")
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise WorkbenchError(f"the query is not valid Unicode at {error.start}") from error
    with duckdb.connect(":memory:") as connection:
        try:
            for name, table in tables.items():
                connection.register(name, _plain(table))
            for name, value in _SETTINGS.items():
                connection.execute(f"SET {name} = {value!r}".replace("True", "true"))
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise WorkbenchError(
                    "a query is one SELECT (or WITH … SELECT) over the tables "
                    f"{', '.join(tables)}: nothing else is run"
                )
            found = _rows(connection.sql(sql).to_arrow_reader(100_000))
        except duckdb.Error as error:
            raise WorkbenchError(f"the query cannot be answered: {error}") from error
    return found


def _rows(batches: Any) -> pd.DataFrame:
    """Batch by batch, so that an endless answer ends."""
    import pyarrow as pa

    kept: list[Any] = []
    for batch in batches:
        kept.append(batch)
        if sum(one.num_rows for one in kept) > MAX_ROWS:
            raise WorkbenchError(f"the answer has over {MAX_ROWS:,} rows: add a LIMIT")
    return pa.Table.from_batches(kept, batches.schema).to_pandas()


def _plain(table: pd.DataFrame) -> object:
    import pyarrow as pa

    return pa.Table.from_pandas(table, preserve_index=False)
