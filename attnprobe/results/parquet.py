"""Tables in Parquet files, their size read from the footer before anything is allocated."""

from pathlib import Path

import pandas as pd
import pyarrow
from pyarrow import parquet

CELLS = 200_000_000
BYTES = 8 * 2**30  # unpacked
# what pandas and pyarrow raise for what is absent, damaged, oddly made or too large
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError),
    *(ArithmeticError, MemoryError, NotImplementedError, pyarrow.ArrowException),
)


def read(path: Path) -> pd.DataFrame:
    """Return the table of a file.

    Raises:
        ValueError: It is no file, or larger than any table of a result; see `UNREADABLE` for
            the others.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise ValueError("it is not a regular file")
    with parquet.ParquetFile(path) as file:
        facts = file.metadata
        groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
        unpacked = sum(max(0, group.total_byte_size) for group in groups)
        rows = max(facts.num_rows, sum(max(0, group.num_rows) for group in groups))
        if rows * facts.num_columns > CELLS or unpacked > BYTES:
            raise ValueError(f"it has {rows} rows of {facts.num_columns} columns")
    return pd.read_parquet(path)
