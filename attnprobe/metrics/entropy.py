"""Entropy of attention: H(q) = -sum_k A' log A', averaged over patch queries."""

import math
from functools import lru_cache

import numpy as np
from torch import Tensor

from attnprobe.errors import CaptureError
from attnprobe.metrics import Metric, mean_over_queries
from attnprobe.tensors import AttentionStats
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

FACTOR = {"nats": 1.0, "bits": 1.0 / math.log(2.0)}


def entropy(stats: AttentionStats, layer: LayerInfo, options: MetricOptions) -> Tensor:
    """Return attention entropy, [images, heads]."""
    if stats.entropy is None:
        raise CaptureError(f"{layer.name} reported no entropy", "report this as a defect")
    return stats.entropy * FACTOR[options.entropy_unit]


@lru_cache(maxsize=64)
def uniform(grid: TokenGrid, options: MetricOptions) -> float:
    """Return the entropy of uniform attention: log n for the n keys a query may see.

    >>> round(uniform(TokenGrid(14, 14, (16, 16)), MetricOptions()), 4)
    5.2781
    """
    prefix = 0 if options.prefix == "renormalised" else grid.prefix
    share = grid.shown / (grid.shown + grid.prefix) if options.prefix == "excluded" else 1.0

    def value(queries: slice) -> np.ndarray:
        keys = grid.visible(queries).sum(-1).clip(min=1)  # padding may see nothing
        return np.log((np.full_like(keys, grid.kept) if grid.kept else keys) + prefix)

    return share * mean_over_queries(grid, value) * FACTOR[options.entropy_unit]


METRIC = Metric(
    name="entropy",
    title="attention entropy",
    axes=("layer", "head"),
    needs="stats",
    version=1,
    unit=lambda options: options.entropy_unit,
    definition=lambda options: (
        f"{options.entropy_unit}, patch queries, prefix {options.prefix}, v1"
    ),
    want=frozenset({"entropy"}),
    measure=entropy,
    uniform=uniform,
)
