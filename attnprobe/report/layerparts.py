"""What the linked views show of one layer beside its numbers, read from a result and checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attnprobe import maps
from attnprobe.errors import ResultError
from attnprobe.frames import rows
from attnprobe.maps import LayerMaps
from attnprobe.results import Result
from attnprobe.results.geometry import grid_of
from attnprobe.types import TokenGrid

QUANTILES = 41
STEPS = 65535


@dataclass(frozen=True)
class LayerParts:
    """One layer.

    Attributes:
        grid: Its geometry, or None where attention has none.
        maps: Its maps, if there are any.
        quantiles: Distance of single images by head, in steps, uint16 [heads, quantiles].
        scale: Length of a step in input pixels.
    """

    grid: TokenGrid | None
    maps: LayerMaps | None
    quantiles: np.ndarray
    scale: float


def layer_parts(result: Result) -> Iterator[LayerParts]:
    """Yield every layer of a result.

    Raises:
        ResultError: Stored maps do not fit the layers they belong to.
    """
    arrays = result.arrays.get("maps", {})
    table = result.tables.get("distance", pd.DataFrame(columns=["unit"]))
    unit = str(next(iter(table["unit"]), ""))
    samples = result.samples.get("distance", pd.DataFrame(columns=["layer"]))
    by_layer = dict(iter(samples.groupby("layer")))
    for row in rows(result.layers):
        grid = grid_of(row)
        factor = pixels(unit, grid) if grid else None
        steps, scale = _quantiles(by_layer.get(row.layer) if factor else None, row.heads)
        stored = _stored(arrays, row, grid) if grid and grid.plain else None
        yield LayerParts(grid, stored, steps, scale * (factor or 1.0))


def photographs(result: Result) -> list[tuple[str, bytes]]:
    """Return id and JPEG file of each image of which maps are stored.

    Raises:
        ResultError: The files are not where the arrays say they are.
    """
    arrays = result.arrays.get("maps", {})
    if not arrays:
        return []
    edges, index = arrays["edges"].tolist(), arrays["index"].tolist()
    data = arrays["images"].tobytes()
    ids = dict(zip(result.images["image"].tolist(), result.images["id"].tolist(), strict=True))
    if edges != sorted(edges) or edges[-1] != len(data) or len(edges) != len(index) + 1:
        raise ResultError(
            f"the images beside the attention maps of {result.name} are damaged",
            "run the analysis again",
        )
    return [
        (str(ids.get(number, f"image {number + 1}")), data[start:end])
        for number, start, end in zip(index, edges, edges[1:], strict=False)
    ]


def pixels(unit: str, grid: TokenGrid) -> float | None:
    """Return how many input pixels one unit of distance is, or None for an unknown unit.

    >>> pixels("tokens", TokenGrid(14, 14, (16, 16)))
    16.0
    """
    token, side = grid.pixels_per_token(), float(np.sqrt(grid.patches))
    known = {"px": 1.0, "tokens": token, "tokens x side": token / side}
    known["unit square"] = token * max(side - 1, 1.0)
    return known.get(unit)


def _stored(arrays: dict[str, np.ndarray], row: Any, grid: TokenGrid) -> LayerMaps | None:
    """Return the maps of one layer, checked against its geometry."""
    if f"rows{row.layer:03d}" not in arrays:
        return None
    found = maps.split(arrays, row.layer)
    pool, heads = maps.pool_of(grid), int(row.heads)
    (down, right), images = grid.extent, len(arrays["index"])
    cells = (images, heads, len(found.queries), -(-down // pool), -(-right // pool))
    if (
        found.pool != pool
        or found.rows.shape != cells
        or found.place.shape != (heads, grid.rows, grid.cols)
        or found.offset.shape != (heads, 2 * down - 1, 2 * right - 1)
        or not set(found.queries.tolist()) <= set(range(grid.rows * grid.cols))
    ):
        raise ResultError(
            f"the attention maps of layer {row.layer + 1} do not fit its grid and heads",
            "run the analysis again",
        )
    return found


def _quantiles(samples: pd.DataFrame | None, heads: int) -> tuple[np.ndarray, float]:
    """Return quantiles of each head's distance over images, in steps, and the step."""
    if samples is None or samples.empty:
        return np.zeros((heads, 0), np.uint16), 1.0
    wide = samples.pivot_table(index="image", columns="head", values="value")
    level = np.linspace(0, 1, min(len(wide), QUANTILES))
    values = np.quantile(wide.reindex(columns=range(heads)).to_numpy(np.float64), level, axis=0)
    values = np.nan_to_num(values.T)
    scale = max(float(values.max()) / STEPS, 1e-12)
    return np.rint(values / scale).astype(np.uint16), scale
