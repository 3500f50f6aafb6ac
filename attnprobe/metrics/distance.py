"""Averaged attention distance (Dosovitskiy et al. 2021, fig. 7; Raghu et al. 2021).

    d(q) = sum_k A'[q, k] * |c_q - c_k|, averaged over patch queries,

with A' the attention row over patch keys and c the patch centres in input pixels.
"""

import math
from functools import lru_cache

import numpy as np
from torch import Tensor

from attnprobe.errors import AttnprobeError, GeometryError
from attnprobe.metrics import Metric, mean_over_queries
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
    kept = 1.0 if options.prefix == "renormalised" else grid.shown / (grid.shown + grid.prefix)
    if grid.kept:  # the expectation: of n patches m stay, and the query itself among them
        m, n = grid.kept, grid.patches
        kept *= (m - 1) / m * n / max(n - 1, 1)
    mean = mean_over_queries(grid, lambda queries: _mean_of_visible(grid, queries))
    return mean * kept * scale(grid, options.distance_unit)


def _mean_of_visible(grid: TokenGrid, queries: slice) -> np.ndarray:
    visible = grid.visible(queries)
    total = (visible * grid.gaps(queries)).sum(-1, dtype=np.float64)
    return total / visible.sum(-1).clip(min=1)  # padding may see nothing


@lru_cache(maxsize=64)
def maximum(grid: TokenGrid, options: MetricOptions) -> float:
    """Return the distance when every query looks only at its farthest visible key.

    Where patches are dropped, this is the bound for the luckiest choice of those that stay.
    """
    farthest = mean_over_queries(
        grid, lambda queries: (grid.visible(queries) * grid.gaps(queries)).max(-1)
    )
    return farthest * scale(grid, options.distance_unit)


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
