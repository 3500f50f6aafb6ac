"""Token geometry that the user states, for models whose own attnprobe does not know."""

import math
from collections.abc import Callable
from typing import Any

from attnprobe.attention.variant import At
from attnprobe.errors import GeometryError
from attnprobe.types import TokenGrid

Grid = TokenGrid | tuple[int, int] | tuple[int, int, int]
Given = Grid | Callable[[str], Grid | None]


def given_grid(given: Given, at: At) -> TokenGrid | None:
    """Return the grid that the user states for a layer, checked against its tokens.

    Args:
        given: A grid; rows and columns, and prefix tokens before them, that cover the whole
            image; or a function that returns one of these for a layer's name, and None where
            its tokens have no place.
        at: The layer.

    Raises:
        GeometryError: It is no grid, or does not explain the tokens.
    """
    if at.queries == 1 < at.keys:
        return None  # one query of the model's own, such as a class token, has no place
    found: Any = given(at.name) if callable(given) else given
    if found is None and at.windows == 1:
        return None
    if found is None:
        raise GeometryError(
            f"{at.name} ({type(at.module).__name__}) attends in {at.windows} windows an image",
            "state them by a TokenGrid; heads folded into the batch need the attribute `num_heads`",
        )
    grid = found if isinstance(found, TokenGrid) else _covering(found, at)
    _check_tokens(grid, at)
    _check_image(grid, at)
    return grid


def _covering(stated: Any, at: At) -> TokenGrid:
    whole = isinstance(stated, tuple) and all(type(x) is int and x >= 0 for x in stated)
    if not whole or len(stated) not in (2, 3) or 0 in stated[:2]:
        raise GeometryError(
            f"grid={stated!r} is no token grid",
            "give (rows, columns), (rows, columns, prefix tokens), a TokenGrid or a function",
        )
    rows, cols, prefix = (*stated, 0)[:3]
    height, width = at.image
    if height % rows or width % cols:
        raise GeometryError(
            f"{rows} x {cols} tokens do not divide an image of {height} x {width}",
            f"give attnprobe.types.TokenGrid({rows}, {cols}, (height, width of a patch in pixels))",
        )
    return TokenGrid(rows, cols, (height / rows, width / cols), prefix=prefix)


def _check_tokens(grid: TokenGrid, at: At) -> None:
    """Refuse a grid with another number of tokens."""
    expected = (math.prod(grid.windows), grid.prefix + grid.queries, grid.tokens)
    if expected != (at.windows, at.queries, at.keys):
        raise GeometryError(
            f"{at.name} ({type(at.module).__name__}) has {at.queries} queries and {at.keys} keys "
            f"in {at.windows} windows an image; the grid that was given has {expected[1]} and "
            f"{expected[2]} in {expected[0]}",
            "state the prefix tokens, grid=(rows, columns, prefix), or give a function of the "
            "layer's name; heads folded into the batch need the attribute `num_heads`",
        )


def _check_image(grid: TokenGrid, at: At) -> None:
    """Refuse patches that are far from filling the image or reach far beyond it."""
    sides = zip((grid.rows, grid.cols), grid.patch, at.image, strict=True)
    if any(not -2 <= count - side / patch < 1 for count, patch, side in sides):
        raise GeometryError(
            f"{grid.rows} x {grid.cols} tokens of {grid.patch[0]:g} x {grid.patch[1]:g} pixels "
            f"are not an image of {at.image[0]} x {at.image[1]}",
            "give the size of a patch in pixels of the images that come in",
        )
