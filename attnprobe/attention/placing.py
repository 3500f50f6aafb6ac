"""Where the tokens of attention lie that is windowed, pooled, or of a hierarchical model.

Nothing is guessed: a number of tokens must be that of exactly one of the strides that the model
states for its stages, and windows are placed only for modules whose partition is known.
"""

import math
from dataclasses import replace

from torch import nn

from attnprobe.attention.variant import At
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid


def ordinary(at: At) -> TokenGrid | None:
    """Return the grid of a layer of which nothing is known but its tokens.

    Raises:
        GeometryError: It is windowed or pooled, and how is not known.
    """
    if at.queries == 1 < at.keys:
        return None  # one query of the model's own, such as a class token, has no place
    if at.windows > 1 or at.queries != at.keys:
        raise unknown(at, f"{at.queries} queries and {at.keys} keys in {at.windows} windows")
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
        raise unknown(at, f"{tokens} tokens")
    return found.pop()


def unknown(at: At, what: str) -> GeometryError:
    """Return the error that says what cannot be placed."""
    return GeometryError(
        f"cannot place {what} of {at.name} ({type(at.module).__name__}) on an image of "
        f"{at.image[0]} x {at.image[1]}",
        "use the input size the model expects, or add its geometry in attnprobe/attention/families",
    )


def windows(at: At) -> TokenGrid:
    """Place solid square windows in reading order.

    Raises:
        GeometryError: They are not that.
    """
    side = math.isqrt(at.keys)
    whole = by_count(at, at.windows * at.keys)
    if at.queries != at.keys or side**2 != at.keys or whole.rows % side or whole.cols % side:
        raise unknown(at, f"{at.queries} queries and {at.keys} keys in {at.windows} windows")
    return whole if at.windows == 1 else replace(whole, window=(side, side))


def strided(at: At) -> TokenGrid:
    """Place keys that the convolution `sr` made of whole cells of the queries.

    Raises:
        GeometryError: They are not that.
    """
    grid = by_count(at, at.queries)
    if at.queries == at.keys:
        return grid
    convolution = at.module.sr
    rows, cols = grid.rows, grid.cols
    whole = isinstance(convolution, nn.Conv2d) and convolution.stride == convolution.kernel_size
    step = convolution.stride if whole else (rows + 1, cols + 1)  # which divide nothing
    if rows % step[0] or cols % step[1]:
        raise unknown(at, f"{at.keys} keys for {rows} x {cols} queries")
    patch = (grid.patch[0] * step[0], grid.patch[1] * step[1])
    keys = TokenGrid(rows // step[0], cols // step[1], patch)
    if keys.patches != at.keys:
        raise unknown(at, f"{at.keys} keys for {rows} x {cols} queries")
    return replace(grid, keys=keys)
