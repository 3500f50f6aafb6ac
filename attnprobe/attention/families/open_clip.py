"""The vision towers of OpenCLIP, and of the CLIP release that it follows."""

from typing import Any

from attnprobe.attention.placing import around, embedded, unknown
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _plain(at: At) -> TokenGrid:
    """Place tokens by the tower around the block; a text tower has no convolution."""
    parts: list[Any] = [part for _, part in around(at)]
    tower = next((part for part in parts if hasattr(part, "class_embedding")), None)
    if tower is None or not hasattr(tower, "conv1"):
        raise unknown(at, f"{at.keys} tokens that are no patches")
    return embedded(at, tower.conv1, ["cls"])


VARIANTS = (
    Variant("transformer.ResidualAttentionBlock", place=_plain),
    Variant("transformer.CustomResidualAttentionBlock", place=_plain),
    Variant("model.ResidualAttentionBlock", place=_plain),
    Variant("transformer.AttentionalPooler", left_out="pools all tokens by queries of its own"),
)
