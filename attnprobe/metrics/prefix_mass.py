"""Attention of patch queries on each prefix token (CLS, distillation, registers)."""

from torch import Tensor

from attnprobe.metrics import Metric
from attnprobe.tensors import AttentionStats
from attnprobe.types import LayerInfo, MetricOptions, TokenGrid


def prefix_mass(stats: AttentionStats, layer: LayerInfo, options: MetricOptions) -> Tensor | None:
    """Return attention on each prefix token, [images, heads, prefix]; None without any."""
    del options
    if layer.grid is None or layer.grid.prefix == 0:
        return None
    return stats.prefix_mass


def uniform(grid: TokenGrid, options: MetricOptions) -> float:
    """Return the mass that uniform attention puts on all prefix tokens together."""
    del options
    return grid.prefix / (grid.prefix + grid.shown)


METRIC = Metric(
    name="prefix_mass",
    title="attention on prefix tokens",
    axes=("layer", "head", "token"),
    needs="stats",
    version=1,
    unit=lambda options: "fraction",
    definition=lambda options: "fraction of a patch query's attention, one value a token, v1",
    want=frozenset({"prefix_mass"}),
    measure=prefix_mass,
    uniform=uniform,
)
