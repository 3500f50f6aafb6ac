"""Where the tokens of attention lie that is windowed, pooled, or of a hierarchical model.

Nothing is guessed: a number of tokens must be that of exactly one of the strides that the model
states for its stages, and windows are placed only for modules whose partition is known.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from attnprobe.attention.variant import At
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid

Rounding = Callable[[float], int]
_UNPADDED = ("valid", 0, (0, 0))


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


def stating(model: nn.Module, name: str) -> tuple[Any, str]:
    """Return the module that states the strides of a layer, as timm's models do of their stages.

    Args:
        model: The whole model, which may have such a module as one of its parts.
        name: The layer.

    Returns:
        The nearest one around the layer, or the whole model; and the layer's name in it.
    """
    outer = name
    while outer:
        outer = outer.rpartition(".")[0]
        part = model.get_submodule(outer)
        if not callable(getattr(part, "feature_info", print)):  # blocks have a method so named
            return part, name[len(outer) :].removeprefix(".")
    return model, name


def by_count(at: At, tokens: int, rounded: Rounding | None = None) -> TokenGrid:
    """Return the grid of so many tokens in reading order at a stride that the model states.

    Args:
        at: The layer.
        tokens: Its tokens.
        rounded: What becomes of a part of a stride; None for whichever the number tells.

    Raises:
        GeometryError: None of its strides, or more than one, gives that number.
    """
    model, _ = stating(at.model, at.name)
    stated = {stage.get("reduction") for stage in getattr(model, "feature_info", ())}
    if hasattr(embed := getattr(model, "patch_embed", None), "backbone"):
        # timm divides the image by the map of the stem, and leaves the rest of the division out
        step = getattr(getattr(embed, "proj", None), "stride", (1,))[0]
        stated = {2**halvings * step for halvings in range(8)}
    count = getattr(model, "num_prefix_tokens", 0)
    prefixes = {0, count} if isinstance(count, int) else {0}
    return by_stride(at, tokens, strides=stated, prefixes=prefixes, rounded=rounded)


def by_stride(
    at: At,
    tokens: int,
    *,
    strides: Iterable[int | None],
    prefixes: Collection[int] = (0,),
    rounded: Rounding | None = None,
) -> TokenGrid:
    """Return the grid of so many tokens in reading order at one of some strides.

    Args:
        at: The layer.
        tokens: Its tokens.
        strides: Strides in pixels.
        prefixes: How many prefix tokens there may be.
        rounded: What becomes of a part of a stride; None for whichever the number tells.

    Raises:
        GeometryError: None of the strides, or more than one, gives that number.
    """
    found = {
        TokenGrid(rows, cols, (float(stride), float(stride)), prefix=prefix)
        for stride in strides
        if isinstance(stride, int)
        for prefix in prefixes
        for whole in ((rounded,) if rounded else (math.ceil, math.floor))
        for rows, cols in [[whole(side / stride) for side in at.image]]
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
        "use the input size the model expects, give grid= to capture or analyze, or add its "
        "geometry in attnprobe/attention/families",
    )


def windows(
    at: At, rounded: Rounding = math.ceil, size: tuple[int, int] | None = None
) -> TokenGrid:
    """Place solid windows in reading order, padded below and to the right so that they tile.

    One window of all tokens may have any shape.

    Args:
        at: The layer.
        rounded: What becomes of a part of a stride.
        size: Rows and columns of a window, where the model states them; else it is square.

    Raises:
        GeometryError: They are not that.
    """
    high, wide = size or (math.isqrt(at.keys),) * 2
    found = set[TokenGrid]()
    for stride in strides_of(at):
        rows, cols = (rounded(length / stride) for length in at.image)
        whole = TokenGrid(rows, cols, (float(stride), float(stride)))
        tiled = replace(whole, window=(high, wide), padding=(-rows % high, -cols % wide))
        if at.windows == 1 and whole.tokens == at.keys:
            found.add(whole)
        elif high * wide == at.keys and math.prod(tiled.windows) == at.windows:
            found.add(tiled)
    if at.queries != at.keys or len(found) != 1:
        raise unknown(at, f"{at.queries} queries and {at.keys} keys in {at.windows} windows")
    return found.pop()


def strides_of(at: At) -> set[int]:
    """Return the stride of the stage that a layer is in, or all that its model states."""
    model, name = stating(at.model, at.name)
    stated = getattr(model, "feature_info", ())
    strides = {stage.get("module", ""): stage.get("reduction") for stage in stated}
    own = {
        stride
        for module, stride in strides.items()
        # timm's Twins says block.0 of its blocks.0
        if module and name.startswith((f"{module}.", f"{module.replace('block.', 'blocks.')}."))
    }
    return {stride for stride in own or strides.values() if isinstance(stride, int)}


def strided(at: At, rounded: Rounding | None = None) -> TokenGrid:
    """Place keys that the convolution `sr` made of whole cells of the queries.

    Args:
        at: The layer.
        rounded: What becomes of a part of a stride; None for whichever the number tells.

    Raises:
        GeometryError: They are not that.
    """
    grid = by_count(at, at.queries, rounded)
    return pooled(at, grid, at.module.sr)


def pooled(at: At, grid: TokenGrid, convolution: object) -> TokenGrid:
    """Place keys that a convolution made of whole cells of the queries; of the rest it makes none.

    Args:
        at: The layer.
        grid: Where its queries lie.
        convolution: What made the keys.

    Raises:
        GeometryError: They are not that.
    """
    if at.queries == at.keys:
        return grid
    rows, cols = grid.rows, grid.cols
    step = (rows + 1, cols + 1)  # which make no key
    if isinstance(convolution, nn.Conv2d) and convolution.stride == convolution.kernel_size:
        step = (int(convolution.stride[0]), int(convolution.stride[1]))
    if rows < step[0] or cols < step[1]:
        raise unknown(at, f"{at.keys} keys for {rows} x {cols} queries")
    patch = (grid.patch[0] * step[0], grid.patch[1] * step[1])
    keys = TokenGrid(rows // step[0], cols // step[1], patch)
    if keys.patches != at.keys:
        raise unknown(at, f"{at.keys} keys for {rows} x {cols} queries")
    return replace(grid, keys=keys)


def subsampled(at: At) -> TokenGrid:
    """Place queries that are every second token of every second row of the keys.

    Raises:
        GeometryError: They are not that.
    """
    keys, queries = by_count(at, at.keys), by_count(at, at.queries)
    middle = (keys.patch[0] / 2, keys.patch[1] / 2)
    return replace(queries, keys=keys, origin=middle)


def around(at: At) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules around an attention module with their names, the nearest first."""
    name = at.name
    while name:
        name = name.rpartition(".")[0]
        yield name, at.model.get_submodule(name)


def embedded(at: At, convolution: object, prefix: Sequence[str]) -> TokenGrid:
    """Place tokens that one convolution makes of an image, in reading order after a prefix.

    Args:
        at: The layer.
        convolution: The convolution.
        prefix: What the prefix tokens are, in order.

    Raises:
        GeometryError: They are not that.
    """
    if not isinstance(convolution, nn.Conv2d) or convolution.padding not in _UNPADDED:
        raise unknown(at, f"{at.keys} tokens, which no convolution makes of patches,")
    step = (int(convolution.stride[0]), int(convolution.stride[1]))
    rows, cols = (
        (side - size) // stride + 1
        for side, size, stride in zip(at.image, convolution.kernel_size, step, strict=True)
    )
    patch = (float(step[0]), float(step[1]))
    grid = TokenGrid(rows, cols, patch, prefix=len(prefix), names=tuple(prefix))
    if (at.windows, at.queries, at.keys) != (1, grid.tokens, grid.tokens):
        raise unknown(
            at,
            f"{at.queries} queries and {at.keys} keys in {at.windows} windows, where {rows} x "
            f"{cols} patches and {grid.prefix} prefix tokens are {grid.tokens},",
        )
    return grid
