"""Averaged attention distance (Dosovitskiy et al. 2021, fig. 7; Raghu et al. 2021).

    d(q) = sum_k A'[q, k] * |c_q - c_k|, averaged over patch queries,

with A' the attention row over patch keys and c the patch centres in input pixels.
"""

import math
from functools import lru_cache

import numpy as np
from torch import Tensor

from attnprobe.errors import AttnprobeError, GeometryError
from attnprobe.metrics import Metric, query_blocks
from attnprobe.tensors import AttentionStats
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

_UNITS = {"px": "px", "tokens": "tokens", "grid": "tokens x side", "unit": "unit square"}
_PREFIX = {
    "renormalised": "patch-to-patch, renormalised",
    "excluded": "patch-to-patch, not renormalised",
    "included": "prefix keys at distance 0",
}


def scale(grid: TokenGrid, unit: str) -> float:
    """Return the factor from pixels to `unit`; a grid's side is the root of its patch count.

    >>> scale(TokenGrid(14, 14, (16, 16)), "tokens")
    0.0625

    Raises:
        AttnprobeError: The unit is unknown.
    """
    side = math.sqrt(grid.patches)
    factors = {"px": grid.pixels_per_token(), "tokens": 1.0, "grid": side}
    factors["unit"] = 1.0 / (side - 1) if side > 1 else 1.0
    if unit not in factors:
        raise AttnprobeError(
            f"unknown distance unit {unit!r}", f"choose one of: {', '.join(factors)}"
        )
    return factors[unit] / grid.pixels_per_token()


def distance(stats: AttentionStats, layer: LayerInfo, options: MetricOptions) -> Tensor | None:
    """Return attention distance, [images, heads]; None where the layer has no geometry."""
    if layer.grid is None:
        return None
    if stats.distance is None:
        raise GeometryError(f"{layer.name} reported no distance", "measure entropy instead")
    return stats.distance * scale(layer.grid, options.distance_unit)


@lru_cache(maxsize=64)
def uniform(grid: TokenGrid, options: MetricOptions) -> float:
    """Return the distance of attention spread evenly over all keys a query may see.

    >>> round(uniform(TokenGrid(14, 14, (16, 16)), MetricOptions()), 2)
    116.49
    """
    kept = 1.0 if options.prefix == "renormalised" else grid.patches / grid.tokens
    rows = [_mean_of_visible(grid, queries) for queries in query_blocks(grid)]  # [windows, queries]
    return float(np.concatenate(rows, axis=1).mean()) * kept * scale(grid, options.distance_unit)


def _mean_of_visible(grid: TokenGrid, queries: slice) -> np.ndarray:
    visible = grid.visible(queries)
    return (visible * grid.gaps(queries)).sum(-1, dtype=np.float64) / visible.sum(-1)


@lru_cache(maxsize=64)
def maximum(grid: TokenGrid, options: MetricOptions) -> float:
    """Return the distance when every query looks only at its farthest visible key."""
    farthest = [(grid.visible(part) * grid.gaps(part)).max(-1) for part in query_blocks(grid)]
    return float(np.concatenate(farthest, axis=1).mean()) * scale(grid, options.distance_unit)


METRIC = Metric(
    name="distance",
    title="attention distance",
    axes=("layer", "head"),
    needs="stats",
    version=1,
    unit=lambda options: _UNITS[options.distance_unit],
    definition=lambda options: f"{options.distance_unit}, {_PREFIX[options.prefix]}, v1",
    want=frozenset({"distance"}),
    measure=distance,
    uniform=uniform,
    maximum=maximum,
)
