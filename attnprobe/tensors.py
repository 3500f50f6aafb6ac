"""The records that carry tensors between capture, kernels and metrics."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from attnprobe.types import LayerInfo


@dataclass(frozen=True)
class AttentionInputs:
    """What one attention layer computes its probabilities from.

    Attributes:
        layer: The layer and its geometry.
        images: Images in the batch; the batch axis holds images x windows, image-major.
        q: Queries, [batch, heads, queries, dim].
        k: Keys, [batch, heads, keys, dim].
        scale: Factor on q . k before the bias.
        bias: Additive logits broadcastable to [batch, heads, queries, keys], or None.
    """

    layer: LayerInfo
    images: int
    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None


@dataclass(frozen=True)
class Features:
    """The output of one block.

    Attributes:
        layer: The attention layer of that block.
        images: Images in the batch.
        x: Tokens, [images, tokens, channels], prefix tokens first.
    """

    layer: LayerInfo
    images: int
    x: Tensor


class AttentionStats(NamedTuple):
    """Per-image means over patch queries of one layer, fp32; None where not asked for.

    Attributes:
        distance: Attention distance in input pixels, [images, heads].
        entropy: Entropy in nats, [images, heads].
        prefix_mass: Attention on each prefix token, [images, heads, prefix].
        kl: KL divergence of head a from head b in nats, [images, heads, heads].
    """

    distance: Tensor | None
    entropy: Tensor | None
    prefix_mass: Tensor | None
    kl: Tensor | None
