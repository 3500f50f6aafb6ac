"""GCViT (Hatamizadeh et al. 2022): windows with global queries."""

from attnprobe.attention.placing import windows
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _windows(at: At) -> TokenGrid:
    return windows(at, size=tuple(at.module.window_size))


VARIANTS = (Variant("gcvit.WindowAttentionGlobal", place=_windows),)
