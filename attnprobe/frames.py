"""Rows of result tables, picked for figures and pages; nothing is computed from them."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from attnprobe.results import Result

MEANS = ["metric", "layer", "value", "low", "high", "uniform", "unit"]


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as tuples with a name for each column."""
    yield from frame.itertuples(index=False)


def known(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Rows that have a number in each of the columns.

    >>> len(known(pd.DataFrame({"low": [1.0, None]}), "low"))
    1
    """
    return frame.loc[frame[list(columns)].notna().all(axis=1)]


def layer_means(result: Result, metric: str) -> pd.DataFrame:
    """Measured rows of `layer_means` for one metric, in layer order; empty when absent."""
    table = result.tables.get("layer_means")
    if table is None or table.empty:
        return pd.DataFrame(columns=MEANS)
    return known(table.loc[table["metric"] == metric], "value").sort_values("layer")


def deepest(results: list[Result]) -> int:
    """Layers of the deepest model."""
    return max(len(result.layers) for result in results)
