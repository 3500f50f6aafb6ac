"""Arrays of a stored result against its layers and images. Torch-free.

`grams` is laid out by `attnprobe.grams`, `maps` by `attnprobe.maps`; others are not looked at.
"""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from attnprobe.results.columns import DamageError, shown

SMALLEST = 5  # images in a mini-batch of CKA
JPEG = b"\xff\xd8"
LAYER = re.compile(r"(?:queries|rows|place|offset)(\d+)")


def check(name: str, parts: dict[str, np.ndarray], layers: pd.DataFrame, images: int) -> None:
    """Refuse arrays of a known name that do not fit the layers and images of their result."""
    if name == "grams":
        _check_grams(parts, len(layers), images)
    elif name == "maps":
        count = _check_photographs(parts, images)
        _check_maps(parts, layers, count)


def _check_grams(parts: dict[str, np.ndarray], layers: int, images: int) -> None:
    sizes = _part(parts, "grams", "sizes", "iu", 1)
    if sizes.min(initial=SMALLEST) < SMALLEST or sizes.max(initial=0) > images:
        raise DamageError(f"the array sizes of grams cannot be {shown(sizes.tolist())}")
    held = [int(size) for size in sizes]
    if sum(held) != images:
        raise DamageError(f"the array sizes of grams is of {sum(held)} images, not of {images}")
    values = _part(parts, "grams", "values", "f", 2)
    pairs = sum(size * (size - 1) // 2 for size in held)
    _check_shape("grams", "values", values, (layers, pairs))
    if not np.isfinite(values).all():
        raise DamageError("the array values of grams has numbers that are not finite")


def _check_photographs(parts: dict[str, np.ndarray], images: int) -> int:
    """Check the images that maps belong to and return how many there are."""
    index = _part(parts, "maps", "index", "iu", 1)
    if not len(index) or index.min() < 0 or index.max() >= images:
        raise DamageError(f"the array index of maps cannot be {shown(index.tolist())}")
    edges = _part(parts, "maps", "edges", "iu", 1)
    files = _part(parts, "maps", "images", "u", 1)
    _check_shape("maps", "edges", edges, (len(index) + 1,))
    bounds = [int(edge) for edge in edges]
    ascending = all(start < end for start, end in pairwise(bounds))
    if files.dtype != np.uint8 or bounds[0] != 0 or bounds[-1] != len(files) or not ascending:
        raise DamageError("the array edges of maps does not part the array images")
    if any(files[start : start + 2].tobytes() != JPEG for start in bounds[:-1]):
        raise DamageError("the array images of maps is not of JPEG files")
    return len(index)


def _check_maps(parts: dict[str, np.ndarray], layers: pd.DataFrame, images: int) -> None:
    pool = _part(parts, "maps", "pool", "iu", 1)
    if not 1 <= len(pool) <= len(layers):
        raise DamageError(f"the array pool of maps is of {len(pool)} layers, not {len(layers)}")
    for name in parts:
        found = LAYER.fullmatch(name)
        if found and int(found[1]) >= len(pool):
            raise DamageError(f"the array {name:.40} of maps is of no layer")
    for number, row in enumerate(layers.head(len(pool)).itertuples()):
        _check_layer(parts, number, int(pool[number]), _Grid(row, images))


class _Grid:
    """Sizes that the maps of a layer have.

    Args:
        row: Its row in the table of layers.
        images: Images of which there are maps.
    """

    def __init__(self, row: Any, images: int) -> None:
        self.images, self.heads = images, int(row.heads)
        self.rows, self.cols = int(row.rows), int(row.cols)
        self.down = int(row.window_rows) or self.rows
        self.right = int(row.window_cols) or self.cols


def _check_layer(parts: dict[str, np.ndarray], number: int, pool: int, grid: _Grid) -> None:
    if not 1 <= pool <= max(grid.down, grid.right):
        raise DamageError(f"the array pool of maps cannot hold {pool}")
    names = {name: f"{name}{number:03d}" for name in ("queries", "rows", "place", "offset")}
    queries = _part(parts, "maps", names["queries"], "iu", 1)
    if len(queries) and not 0 <= int(queries.min()) <= int(queries.max()) < grid.rows * grid.cols:
        raise DamageError(f"the array {names['queries']} of maps leaves the grid of its layer")
    rows = _part(parts, "maps", names["rows"], "u", 5)
    if rows.dtype != np.uint8:
        raise DamageError(f"the array {names['rows']} of maps is not of bytes")
    cells = (-(-grid.down // pool), -(-grid.right // pool))
    _check_shape("maps", names["rows"], rows, (grid.images, grid.heads, len(queries), *cells))
    sizes = {"place": (grid.rows, grid.cols), "offset": (2 * grid.down - 1, 2 * grid.right - 1)}
    for name, size in sizes.items():
        values = _part(parts, "maps", names[name], "f", 3)
        _check_shape("maps", names[name], values, (grid.heads, *size))
        if not np.isfinite(values).all() or values.min(initial=0) < 0:
            raise DamageError(f"the array {names[name]} of maps has numbers that cannot be")


def _part(parts: dict[str, np.ndarray], table: str, name: str, kinds: str, axes: int) -> np.ndarray:
    """Return one array after checking its kind and number of axes."""
    if name not in parts:
        raise DamageError(f"the array {name} of {table} is missing")
    found = parts[name]
    if not isinstance(found, np.ndarray) or found.dtype.kind not in kinds or found.ndim != axes:
        kind = getattr(found, "dtype", type(found).__name__)
        raise DamageError(f"the array {name} of {table} cannot be of {kind!s:.40}")
    return found


def _check_shape(table: str, name: str, found: np.ndarray, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise DamageError(f"the array {name} of {table} is {found.shape}, not {expected}")
