"""Columns of stored tables: whether they are there, of their kind and within sane limits.

Whoever wrote a table may be a stranger. Every check names the table and the column, and quotes
the value that cannot be, cut short and with escapes.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

LARGEST = 1e100  # squares of it are finite still
LONGEST_TEXT = 10_000


class DamageError(ValueError):
    """Something stored is not what its place asks for; the text names it."""


def shown(value: Any) -> str:
    """Return a value as a message quotes it.

    >>> shown("a" * 100) == "'" + "a" * 59
    True
    """
    plain = value.item() if isinstance(value, np.generic) else value
    return f"{plain!r:.60}"


def check_frame(frame: pd.DataFrame, table: str) -> None:
    """Refuse columns without a name of their own, or that hold neither numbers nor text.

    Args:
        frame: The table.
        table: What messages call it.
    """
    if not all(isinstance(name, str) for name in frame.columns) or not frame.columns.is_unique:
        raise DamageError(f"{table} has columns without names of their own")
    if not isinstance(frame.index, pd.RangeIndex):
        raise DamageError(f"{table} has an index, which results are saved without")
    for name in frame.columns:
        column: Any = frame[name]
        if column.dtype.kind in "iufb" or pd.api.types.infer_dtype(column) in ("string", "empty"):
            continue
        raise DamageError(f"the column {name:.40} of {table} holds neither numbers nor text")


def numbers(
    frame: pd.DataFrame,
    table: str,
    name: str,
    *,
    within: tuple[float, float] = (-LARGEST, LARGEST),
    untyped: bool = False,
) -> np.ndarray:
    """Return a column of numbers as float64; missing ones are NaN.

    Args:
        frame: The table.
        table: What messages call it.
        name: The column.
        within: Least and largest number.
        untyped: Whether the column may have no type, having no value at all.
    """
    column = _column(frame, table, name)
    if not len(column) or (untyped and bool(column.isna().all())):
        return np.full(len(column), np.nan)
    if column.dtype.kind not in "iuf":
        raise DamageError(f"the column {name} of {table} is not of numbers: {_first(column)}")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isinf(values) | (values < within[0]) | (values > within[1])
    _refuse(wrong, values, table, name)
    return values


def integers(frame: pd.DataFrame, table: str, name: str, *, within: tuple[int, int]) -> np.ndarray:
    """Return a column of integers between two limits, none of them missing, as int64."""
    column = _column(frame, table, name)
    if not len(column):
        return np.zeros(0, dtype=np.int64)
    if column.dtype.kind not in "iu" or bool(column.isna().any()):
        raise DamageError(f"the column {name} of {table} is not of integers: {_first(column)}")
    for end in (column.min(), column.max()):
        if not within[0] <= int(end) <= within[1]:
            raise DamageError(f"the column {name} of {table} cannot hold {shown(end)}")
    return column.to_numpy(dtype=np.int64)


def texts(
    frame: pd.DataFrame, table: str, name: str, *, longest: int = LONGEST_TEXT, form: str = ""
) -> pd.Series:
    """Return a column of text, none of it missing.

    Args:
        frame: The table.
        table: What messages call it.
        name: The column.
        longest: Characters, at most.
        form: Regular expression that each text is, as a whole.
    """
    column = _column(frame, table, name)
    if not len(column):
        return column
    if bool(column.isna().any()) or pd.api.types.infer_dtype(column) != "string":
        raise DamageError(f"the column {name} of {table} is not of text: {_first(column)}")
    for text in column.unique():
        if len(text) > longest or (form and not re.fullmatch(form, text)):
            raise DamageError(f"the column {name} of {table} cannot hold {shown(text)}")
    return column


def joint(parts: Sequence[np.ndarray], table: str) -> np.ndarray:
    """Return one number a row for several columns of counts, apart where any of them is.

    >>> joint([np.array([0, 1]), np.array([2, 0])], "it").tolist()
    [2, 3]
    """
    code, size = np.zeros(len(parts[0]), dtype=np.int64), 1
    for part in parts:
        levels = int(part.max(initial=0)) + 1
        size *= levels
        if size > 2**62:
            raise DamageError(f"{table} has keys that are too large")
        code = code * levels + part
    return code


def check_unique(parts: Sequence[np.ndarray], table: str) -> None:
    """Refuse a table in which two rows have the same key."""
    code = joint(parts, table)
    steps = np.diff(code)
    if not (steps > 0).all() and len(np.unique(code)) != len(code):
        raise DamageError(f"{table} says something twice")


def check_whole(image: np.ndarray, inner: Sequence[np.ndarray], table: str) -> None:
    """Refuse per-image values that say something twice, or not of each image the same.

    Args:
        image: Image of each row.
        inner: Columns that tell the rows of one image apart.
        table: What messages call it.
    """
    if not len(image):
        return
    one = joint(inner, table)
    code = joint([image, one], table)
    if not (np.diff(code) > 0).all():
        order = np.argsort(code, kind="stable")
        image, one, code = image[order], one[order], code[order]
    if (np.diff(code) == 0).any():
        raise DamageError(f"{table} says something twice")
    images = int(np.count_nonzero(np.diff(image))) + 1
    rows = len(image) // images
    if rows * images != len(image) or (one.reshape(images, rows) != one[:rows]).any():
        raise DamageError(f"{table} does not hold the same of every image")


def _column(frame: pd.DataFrame, table: str, name: str) -> Any:
    if name not in frame.columns:
        raise DamageError(f"the column {name} of {table} is missing")
    return frame[name]


def _first(column: Any) -> str:
    """Return a value of a column of the wrong kind, a missing one first."""
    missing = column.isna().to_numpy()
    return shown(None if missing.any() else column.iloc[0])


def _refuse(wrong: np.ndarray, values: np.ndarray, table: str, name: str) -> None:
    if wrong.any():
        found = shown(values[int(np.argmax(wrong))])
        raise DamageError(f"the column {name} of {table} cannot hold {found}")
