"""Token geometry as columns of the table of layers, and back. Torch-free.

Results of earlier releases lack the columns of keys, dilation, padding and dropped patches: their
layers have none of these.
"""

import math
from typing import Any

import pandas as pd

from attnprobe.types import TokenGrid

SIDES = ("rows", "cols")


def columns_of(grid: TokenGrid | None) -> dict[str, Any]:
    """Return the columns that say where the tokens of a layer lie; zeros where they have no place.

    Args:
        grid: Its geometry.
    """
    whole, keys = grid or TokenGrid(0, 0, (0, 0)), grid.keys if grid else None
    at = keys or TokenGrid(0, 0, (0, 0))
    return {
        "rows": whole.rows,
        "cols": whole.cols,
        "patch_h": whole.patch[0] or None,
        "patch_w": whole.patch[1] or None,
        "prefix": whole.prefix,
        **_pair("window", whole.window or (0, 0)),
        **_pair("shift", whole.shift),
        "patches": whole.patches,
        **_pair("dilation", whole.dilation),
        **_pair("pad", whole.padding),
        "pad_late": int(whole.late),
        "kept": whole.kept,
        **_pair("origin", whole.origin or (None, None)),
        **_pair("key", (at.rows, at.cols)),
        "key_patch_h": at.patch[0] or None,
        "key_patch_w": at.patch[1] or None,
        **_pair("key_window", at.window or (0, 0)),
        **_pair("key_origin", at.origin or (None, None)),
    }


def grid_of(row: Any) -> TokenGrid | None:
    """Return the geometry of a row of the table of layers, or None where it has none.

    Args:
        row: The row, its columns as attributes.
    """
    if not row.rows or pd.isna(row.patch_h):
        return None
    keys = None
    if getattr(row, "key_rows", 0):
        keys = TokenGrid(
            int(row.key_rows),
            int(row.key_cols),
            (float(row.key_patch_h), float(row.key_patch_w)),
            window=_window(row, "key_window"),
            origin=_origin(row, "key_origin"),
        )
    return TokenGrid(
        int(row.rows),
        int(row.cols),
        (float(row.patch_h), float(row.patch_w)),
        int(row.prefix),
        _window(row, "window"),
        _counts(row, "shift"),
        keys=keys,
        dilation=_counts(row, "dilation", 1),
        origin=_origin(row, "origin"),
        padding=_counts(row, "pad"),
        late=bool(getattr(row, "pad_late", 0)),
        kept=int(getattr(row, "kept", 0)),
    )


def _pair(name: str, values: tuple[Any, Any]) -> dict[str, Any]:
    return {f"{name}_{side}": value for side, value in zip(SIDES, values, strict=True)}


def _counts(row: Any, name: str, absent: int = 0) -> tuple[int, int]:
    down, across = (int(getattr(row, f"{name}_{side}", absent)) for side in SIDES)
    return down, across


def _window(row: Any, name: str) -> tuple[int, int] | None:
    window = _counts(row, name)
    return window if all(window) else None


def _origin(row: Any, name: str) -> tuple[float, float] | None:
    y, x = (_number(getattr(row, f"{name}_{side}", None)) for side in SIDES)
    return None if math.isnan(y + x) else (y, x)


def _number(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)
