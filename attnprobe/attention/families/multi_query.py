"""Multi-query attention over a map (Qin et al. 2024, MobileNetV4): keys and queries strided."""

import math
from dataclasses import replace

from torch import nn

from attnprobe.attention.placing import strides_of, unknown
from attnprobe.attention.strides import convolved, counted
from attnprobe.attention.variant import At, Variant
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid


def _strided(at: At) -> TokenGrid:
    """Follow the pooling of the queries and the convolution of the keys from the stage's map."""
    found = set[TokenGrid]()
    for grid in _maps(at):
        queries, keys = (_through(grid, at.module.query), _through(grid, at.module.key))
        placed = replace(queries, keys=None if keys == queries else keys)
        try:
            found.add(counted(at, placed))
        except GeometryError:
            continue  # it is the map of another stage
    if len(found) != 1:
        raise unknown(at, f"{at.queries} queries and {at.keys} keys")
    return found.pop()


def _maps(at: At) -> set[TokenGrid]:
    """Return the maps that the stage of a layer may have, by its stride; all stages' if unknown."""
    found = set[TokenGrid]()
    for stride in strides_of(at):
        for whole in (math.ceil, math.floor):
            rows, cols = (whole(side / stride) for side in at.image)
            found.add(TokenGrid(rows, cols, (float(stride), float(stride))))
    return found


def _through(grid: TokenGrid, projection: nn.Module) -> TokenGrid:
    """Return the grid behind what strides in a projection, which pads alike on all sides."""
    for name in ("down_pool", "down_conv"):
        layer = getattr(projection, name, None)
        if layer is not None:
            grid = convolved(grid, layer)
    return grid


VARIANTS = (Variant("attention2d.MultiQueryAttention2d", place=_strided),)
