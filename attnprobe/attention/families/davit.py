"""DaViT (Ding et al. 2022): windows and channels in turn."""

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import Variant

VARIANTS = (
    Variant("davit.WindowAttention", place=windows),
    Variant(
        "davit.ChannelAttention",
        left_out="attends from channels to channels, not from patches to patches",
    ),
)
