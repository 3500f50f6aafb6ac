"""Metrics: one file each, one pure function and one METRIC record.

A metric of attention maps one layer of one batch to values per image; the record says what
it needs, so that the kernels compute nothing that nobody asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attnprobe import plugins
from attnprobe.errors import AttnprobeError
from attnprobe.statistics import MEAN, Statistic
from attnprobe.tensors import Features
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

DEFAULT = ("distance", "entropy", "head_kl", "prefix_mass", "cka")


@dataclass(frozen=True)
class OfFeatures:
    """How a metric over block outputs is made: features an image, then mini-batches of images.

    Attributes:
        smallest: Images that a mini-batch must have.
        check: Refuses conventions that cannot be, before any work.
        pool: Features of the images of one layer of one batch, [images, channels].
        group: Values of one mini-batch from the features of its layers, a list of
            [n, channels]: `samples` [n, ...], NaN where n is too small, and what is kept beside.
        arrays: What comparisons need beside the values, from all mini-batches in order, by
            name and part.
    """

    smallest: int
    check: Callable[[MetricOptions], None]
    pool: Callable[[Features, MetricOptions], Tensor]
    group: Callable[[list[Tensor], MetricOptions], dict[str, np.ndarray]]
    arrays: Callable[[list[dict[str, np.ndarray]]], dict[str, dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Public name: the file's name and the table's.
        title: Words for axes and headings.
        axes: Columns that index a value beside the image.
        needs: stats (kernel statistics), weights (probabilities of patch rows) or features.
        version: Raised whenever numbers change.
        unit: Unit of the values under the given options.
        definition: The convention in words, printed with every table.
        want: Kernel statistics to compute, for needs = stats.
        measure: Values of one layer of one batch, [images, *axes without layer].
        features: How values come from features, for needs = features.
        uniform: The value that uniform attention has on a grid, if one exists.
        maximum: The largest possible value on a grid, if one is reported.
        statistic: What turns means over images into the value.
    """

    name: str
    title: str
    axes: tuple[str, ...]
    needs: str
    version: int
    unit: Callable[[MetricOptions], str]
    definition: Callable[[MetricOptions], str]
    want: frozenset[str] = frozenset()
    measure: Callable[[Any, LayerInfo, MetricOptions], Tensor | None] | None = None
    features: OfFeatures | None = None
    uniform: Callable[[TokenGrid, MetricOptions], float] | None = None
    maximum: Callable[[TokenGrid, MetricOptions], float] | None = None
    statistic: Statistic = MEAN


def query_blocks(grid: TokenGrid) -> list[slice]:
    """Cut the queries of a grid, so that what is made for all keys of one cut stays small."""
    step = max(1, (1 << 20) // grid.patches)
    return [slice(start, start + step) for start in range(0, grid.queries, step)]


def mean_over_queries(grid: TokenGrid, value: Callable[[slice], np.ndarray]) -> float:
    """Return the mean of a value of queries over those of a grid that are image.

    Args:
        grid: Token geometry.
        value: Values of some queries, [windows, queries].
    """
    found = [(value(part), grid.present(part)) for part in query_blocks(grid)]
    return float(np.concatenate([x[np.broadcast_to(there, x.shape)] for x, there in found]).mean())


def names() -> tuple[str, ...]:
    """Names of all metrics, sorted."""
    return plugins.names(__name__)


def load(name: str, own: Sequence[Metric] = ()) -> Metric:
    """Return a metric by name, from attnprobe or from those of the user's own.

    >>> load("distance").axes
    ('layer', 'head')

    Raises:
        AttnprobeError: There is none of that name.
    """
    mine = {metric.name: metric for metric in own}
    if name in mine:
        return mine[name]
    if mine and name not in names():
        known = ", ".join((*names(), *mine))
        raise AttnprobeError(f"unknown metric {name!r}", f"choose one of: {known}")
    return plugins.load(__name__, name, "METRIC")
