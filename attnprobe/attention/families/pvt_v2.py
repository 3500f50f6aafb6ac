"""PVT v2 (Wang et al. 2021): keys pooled by a convolution, or to a fixed number of means."""

from dataclasses import replace

from torch import nn

from attnprobe.attention.placing import by_count, strided, unknown
from attnprobe.attention.strides import counted
from attnprobe.attention.variant import At, Variant
from attnprobe.types import TokenGrid


def _pooled(at: At) -> TokenGrid:
    pool = getattr(at.module, "pool", None)
    if not isinstance(pool, nn.AdaptiveAvgPool2d):
        return strided(at)
    side = pool.output_size
    grid = by_count(at, at.queries)
    if not isinstance(side, int) or grid.rows % side or grid.cols % side:
        raise unknown(at, f"{at.keys} means over unequal parts of {grid.rows} x {grid.cols} tokens")
    patch = (grid.patch[0] * grid.rows / side, grid.patch[1] * grid.cols / side)
    keys = TokenGrid(side, side, patch)
    return counted(at, replace(grid, keys=None if grid.queries == keys.queries else keys))


VARIANTS = (Variant("pvt_v2.Attention", place=_pooled),)
