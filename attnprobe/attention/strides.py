"""Where tokens lie, followed through a model's own convolutions and poolings.

Token numbers are checked against what came; nothing is guessed from them.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from attnprobe.attention.placing import around, strides_of, unknown
from attnprobe.attention.reader import kind_of
from attnprobe.attention.variant import At
from attnprobe.types import TokenGrid


def owner(at: At, *kinds: str) -> Any:
    """Return the nearest module around a layer that is of a class, as `kind_of` gives it.

    Raises:
        GeometryError: There is none.
    """
    found = next((part for _, part in around(at) if kind_of(part) in kinds), None)
    if found is None:
        raise unknown(at, f"{at.keys} tokens, outside a {kinds[0]},")
    return found


def holds(part: nn.Module, module: nn.Module) -> bool:
    """Whether a module is a part of a model, or lies somewhere within it."""
    return any(inner is module for inner in part.modules())


def stage_in(stages: Iterable[nn.Module], module: nn.Module) -> int:
    """Return which of some stages a module lies in, counted from 0."""
    return next(index for index, stage in enumerate(stages) if holds(stage, module))


def pixels(at: At) -> TokenGrid:
    """Return the grid of the image's own pixels, from which `convolved` goes on."""
    return TokenGrid(*at.image, (1.0, 1.0), origin=(0.5, 0.5))


def convolved(grid: TokenGrid, layer: Any) -> TokenGrid:
    """Return where the outputs of a convolution or pooling over a whole grid lie.

    Each lies at the middle of what it is made of.

    Args:
        grid: Where its inputs lie, with an origin.
        layer: An nn.Conv2d or a pooling, by its kernel_size, stride and padding.
    """
    kernel, stride, padding = map(_pair, (layer.kernel_size, layer.stride, layer.padding))
    first = grid.origin or (grid.patch[0] / 2, grid.patch[1] / 2)
    rows, cols = (
        (side + 2 * pad - size) // step + 1
        for side, size, step, pad in zip(grid.extent, kernel, stride, padding, strict=True)
    )
    y, x = (
        start + apart * ((size - 1) / 2 - pad)
        for start, apart, size, pad in zip(first, grid.patch, kernel, padding, strict=True)
    )
    patch = (grid.patch[0] * stride[0], grid.patch[1] * stride[1])
    return TokenGrid(rows, cols, patch, origin=(y, x))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def tiled(at: At, grid: TokenGrid, window: tuple[int, int]) -> TokenGrid:
    """Return a grid in solid windows, padded below and to the right so that they tile.

    Raises:
        GeometryError: A window without tokens.
    """
    if 0 in window:
        raise unknown(at, f"{at.keys} keys in windows of {window[0]} x {window[1]}")
    return replace(grid, window=window, padding=(-grid.rows % window[0], -grid.cols % window[1]))


def counted(at: At, grid: TokenGrid) -> TokenGrid:
    """Return a grid if it has the windows, queries and keys that came.

    Raises:
        GeometryError: It has others.
    """
    (rows, cols), (high, wide) = grid.extent, grid.padding
    if not rows * cols:
        raise unknown(at, f"{at.queries} queries and {at.keys} keys")
    tiled = not ((grid.rows + high) % rows or (grid.cols + wide) % cols)
    windows = math.prod(grid.windows)
    stated = (windows, grid.prefix + grid.queries, grid.tokens)
    if not tiled or stated != (at.windows, at.queries, at.keys):
        raise unknown(
            at,
            f"{at.queries} queries and {at.keys} keys in {at.windows} windows, not "
            f"{stated[1]} and {stated[2]} in {windows},",
        )
    return grid


def stride_of(at: At) -> int:
    """Return the stride that the model states for the stage a layer is in.

    Raises:
        GeometryError: It states none, or several.
    """
    stated = strides_of(at)
    if len(stated) != 1:
        raise unknown(at, f"{at.queries} queries and {at.keys} keys")
    return stated.pop()
