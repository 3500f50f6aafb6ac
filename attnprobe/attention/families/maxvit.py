"""MaxViT (Tu et al. 2022): solid windows in blocks, windows spread out in grids."""

from dataclasses import replace

from attnprobe.attention.placing import by_count, windows
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _partition(at: At) -> TokenGrid:
    """Place MaxViT's windows, solid in its blocks and spread out in its grids."""
    size = getattr(at.parent, "partition_size", None)
    if size is None or at.windows == 1:
        return by_count(replace(at, windows=1), at.windows * at.keys)
    grid = windows(at, size=(size[0], size[1]))
    if at.parent.partition_block:
        return grid
    return replace(grid, dilation=(grid.rows // size[0], grid.cols // size[1]))


VARIANTS = (
    Variant("maxxvit.AttentionCl", place=_partition),
    Variant("maxxvit.Attention2d", place=_partition),
)
