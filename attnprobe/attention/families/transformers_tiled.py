"""ViTDet, SAM and what follows them in the transformers library: solid windows, padded."""

from typing import Any

from torch import nn

from attnprobe.attention.placing import around, unknown
from attnprobe.attention.strides import convolved, counted, pixels, tiled
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid

_EMBEDDINGS = ("patch_embed", "embeddings")


def _windows(at: At) -> TokenGrid:
    """Place windows by the size that the block states; of size 0 it attends globally."""
    parts: list[Any] = [part for _, part in around(at)]
    side = next((part.window_size for part in parts if hasattr(part, "window_size")), None)
    found = (getattr(part, name, None) for part in parts for name in _EMBEDDINGS)
    embedding = next((x for x in found if x is not None), nn.Identity())
    convolutions = [part for part in embedding.modules() if isinstance(part, nn.Conv2d)]
    if not isinstance(side, int) or len(convolutions) != 1:
        raise unknown(at, f"{at.keys} keys in {at.windows} windows")
    grid = convolved(pixels(at), convolutions[0])
    return counted(at, tiled(at, grid, (side, side)) if side else grid)


VARIANTS = tuple(
    Variant(kind, place=_windows)
    for kind in (
        "modeling_sam.SamVisionAttention",
        "modeling_sam.SamVisionSdpaAttention",
        "modeling_sam3.Sam3ViTRoPEAttention",
        "modeling_sam_hq.SamHQVisionAttention",
        "modeling_sam_hq.SamHQVisionSdpaAttention",
        "modeling_vitdet.VitDetAttention",
    )
)
