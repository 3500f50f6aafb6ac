"""Diversity of the heads of one layer (Xie et al. 2023, fig. 3).

    KL(i || j) = mean over queries and images of sum_k A'_i log(A'_i / A'_j)

for all ordered pairs of heads; zero when two heads look at the same places.
"""

from torch import Tensor

from attnprobe.errors import CaptureError
from attnprobe.metrics import Metric
from attnprobe.tensors import AttentionStats
from attnprobe.types import LayerInfo, MetricOptions

_WORDS = {
    "kl": "KL(a || b)",
    "symmetric": "(KL(a || b) + KL(b || a)) / 2",
    "js": "Jensen-Shannon(a, b)",
}


def head_kl(stats: AttentionStats, layer: LayerInfo, options: MetricOptions) -> Tensor:
    """Return the divergence of head a from head b, [images, heads, heads]."""
    if stats.kl is None:
        raise CaptureError(f"{layer.name} reported no head KL", "report this as a defect")
    if options.divergence == "symmetric":
        return 0.5 * (stats.kl + stats.kl.transpose(1, 2))
    return stats.kl


METRIC = Metric(
    name="head_kl",
    title="KL divergence between heads",
    axes=("layer", "head_a", "head_b"),
    needs="stats",
    version=1,
    unit=lambda options: "nats",
    definition=lambda options: (
        f"{_WORDS[options.divergence]}, nats, patch queries, prefix {options.prefix}, v1"
    ),
    want=frozenset({"kl"}),
    measure=head_kl,
)
