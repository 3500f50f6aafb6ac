"""Where the tokens of attention lie that is windowed, pooled, or of a hierarchical model.

Nothing is guessed: a number of tokens must be that of exactly one of the strides that the model
states for its stages, and windows are placed only for modules whose partition is known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from attnprobe.attention.reader import kind_of
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid


@dataclass(frozen=True)
class At:
    """One attention module in a pass.

    Attributes:
        name: Its qualified name.
        model: The whole model.
        module: The attention module.
        parent: The module around it.
        image: Height and width of the input in pixels.
        windows: Windows of one image; 1 for global attention.
        queries: Queries of one window.
        keys: Keys of one window.
    """

    name: str
    model: nn.Module
    module: Any
    parent: Any
    image: tuple[int, int]
    windows: int
    queries: int
    keys: int


def place(at: At) -> TokenGrid | None:
    """Return the grid of a layer, or None where its tokens have no place on the image.

    Raises:
        GeometryError: They have one, and it is not known.
    """
    rule = _RULES.get(kind_of(at.module))
    if rule is not None:
        return rule(at)
    if at.queries == 1 < at.keys:
        return None  # one query of the model's own, such as a class token, has no place
    if at.windows > 1 or at.queries != at.keys:
        raise _unknown(at, f"{at.queries} queries and {at.keys} keys in {at.windows} windows")
    return by_count(at, at.keys)


def by_count(at: At, tokens: int) -> TokenGrid:
    """Return the grid of so many tokens in reading order at a stride that the model states.

    Raises:
        GeometryError: None of its strides, or more than one, gives that number.
    """
    stated = {stage.get("reduction") for stage in getattr(at.model, "feature_info", ())}
    count = getattr(at.model, "num_prefix_tokens", 0)
    prefixes = {0, count} if isinstance(count, int) else {0}
    found = {
        TokenGrid(rows, cols, (float(stride), float(stride)), prefix=prefix)
        for stride in stated
        if isinstance(stride, int)
        for prefix in prefixes
        for rows, cols in [[math.ceil(side / stride) for side in at.image]]
        if rows * cols + prefix == tokens
    }
    if len(found) != 1:
        raise _unknown(at, f"{tokens} tokens")
    return found.pop()


def _unknown(at: At, what: str) -> GeometryError:
    return GeometryError(
        f"cannot place {what} of {at.name} ({type(at.module).__name__}) on an image of "
        f"{at.image[0]} x {at.image[1]}",
        "use the input size the model expects, or add its geometry in "
        "attnprobe/attention/placing.py",
    )


def _windows(at: At) -> TokenGrid:
    """Place solid square windows in reading order."""
    side = math.isqrt(at.keys)
    whole = by_count(at, at.windows * at.keys)
    if at.queries != at.keys or side**2 != at.keys or whole.rows % side or whole.cols % side:
        raise _unknown(at, f"{at.queries} queries and {at.keys} keys in {at.windows} windows")
    return whole if at.windows == 1 else replace(whole, window=(side, side))


def _shifted(at: At) -> TokenGrid:
    grid = _windows(at)
    return replace(grid, shift=tuple(at.parent.shift_size)) if grid.window else grid


def _partition(at: At) -> TokenGrid:
    """Place MaxViT's windows, solid in its blocks and spread out in its grids."""
    size = getattr(at.parent, "partition_size", None)
    if size is None or at.windows == 1:
        return by_count(replace(at, windows=1), at.windows * at.keys)
    grid = _windows(at)
    if at.parent.partition_block:
        return grid
    return replace(grid, dilation=(grid.rows // size[0], grid.cols // size[1]))


def _strided(at: At) -> TokenGrid:
    """Place keys that a convolution made of whole cells of the queries."""
    grid = by_count(at, at.queries)
    if at.queries == at.keys:
        return grid
    convolution = at.module.sr
    rows, cols = grid.rows, grid.cols
    whole = isinstance(convolution, nn.Conv2d) and convolution.stride == convolution.kernel_size
    step = convolution.stride if whole else (rows + 1, cols + 1)  # which divide nothing
    if rows % step[0] or cols % step[1]:
        raise _unknown(at, f"{at.keys} keys for {rows} x {cols} queries")
    patch = (grid.patch[0] * step[0], grid.patch[1] * step[1])
    keys = TokenGrid(rows // step[0], cols // step[1], patch)
    if keys.patches != at.keys:
        raise _unknown(at, f"{at.keys} keys for {rows} x {cols} queries")
    return replace(grid, keys=keys)


def _subsampled(at: At) -> TokenGrid:
    """Place queries that are every second token of every second row of the keys."""
    keys, queries = by_count(at, at.keys), by_count(at, at.queries)
    middle = (keys.patch[0] / 2, keys.patch[1] / 2)
    return replace(queries, keys=keys, origin=middle)


def _refused(at: At) -> TokenGrid:
    raise _unknown(at, f"{at.keys} keys, in an order of the model's own,")


def _averaged(at: At) -> TokenGrid | None:
    """Keys that are means over stretches of the reading order have no place."""
    return by_count(at, at.keys) if at.queries == at.keys else None


_RULES: dict[str, Callable[[At], TokenGrid | None]] = {
    "davit.WindowAttention": _windows,
    "gcvit.WindowAttentionGlobal": _windows,
    "hiera.MaskUnitAttention": _refused,
    "hieradet_sam2.MultiScaleAttention": _refused,
    "levit.AttentionDownsample": _subsampled,
    "maxxvit.AttentionCl": _partition,
    "maxxvit.Attention2d": _partition,
    "nest.Attention": _windows,
    "nextvit.EfficientAttention": _averaged,
    "pvt_v2.Attention": _strided,
    "swin_transformer_v2_cr.WindowMultiHeadAttention": _shifted,
    "tiny_vit.Attention": _windows,
    "twins.GlobalSubSampleAttn": _strided,
    "twins.LocallyGroupedAttn": _windows,
    "vision_transformer_sam.Attention": _windows,
}
