"""DaViT (Ding et al. 2022), also of Florence-2: windows and channels in turn."""

from attnprobe.attention.placing import windows
from attnprobe.attention.strides import convolved, counted, owner, pixels, stage_in, tiled
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid

_CHANNELS = "attends from channels to channels, not from patches to patches"


def _hugging(at: At) -> TokenGrid:
    """Follow the convolutions between the stages of Florence-2, then place solid windows."""
    model = owner(at, "modeling_florence2.Florence2VisionBackbone")
    grid = pixels(at)
    for embedding in model.convs[: stage_in(model.blocks, at.module) + 1]:
        grid = convolved(grid, embedding.conv)
    side = int(at.module.window_size)
    return counted(at, tiled(at, grid, (side, side)))


VARIANTS = (
    Variant("davit.WindowAttention", place=windows),
    Variant("davit.ChannelAttention", left_out=_CHANNELS),
    Variant("davit.ChannelAttentionV2", left_out=_CHANNELS),
    Variant("modeling_florence2.Florence2VisionChannelAttention", left_out=_CHANNELS),
    Variant("modeling_florence2.Florence2VisionWindowAttention", place=_hugging),
)
