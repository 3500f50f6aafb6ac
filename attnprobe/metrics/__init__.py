"""Metrics: one file each, one pure function and one METRIC record.

A metric of attention maps one layer of one batch to values per image; the record says what
it needs, so that the kernels compute nothing that nobody asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from attnprobe import plugins
from attnprobe.statistics import MEAN, Statistic
from attnprobe.tensors import Features
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid

DEFAULT = ("distance", "entropy", "head_kl", "prefix_mass", "cka")


class FeatureAccumulator(Protocol):
    """State of a metric over block outputs."""

    def update(self, features: Features) -> None:
        """Take one block output of one batch."""
        ...

    def merge(self, other: Any) -> None:
        """Take over what another device has seen."""
        ...

    def samples(self) -> np.ndarray:
        """Return per-image values, [images, ...]."""
        ...

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return what comparisons need beside the values, by name and part."""
        ...


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
        start: Fresh accumulator, for needs = features.
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
    start: Callable[[MetricOptions], FeatureAccumulator] | None = None
    uniform: Callable[[TokenGrid, MetricOptions], float] | None = None
    maximum: Callable[[TokenGrid, MetricOptions], float] | None = None
    statistic: Statistic = MEAN


def names() -> tuple[str, ...]:
    """Names of all metrics, sorted."""
    return plugins.names(__name__)


def load(name: str) -> Metric:
    """Return a metric by name.

    >>> load("distance").axes
    ('layer', 'head')
    """
    return plugins.load(__name__, name, "METRIC")
