"""The patch grid of an encoder, from its positions, from what is stated, or by custom."""

from attnprobe.checkpoints.building import architecture
from attnprobe.checkpoints.building.architecture import Shapes
from attnprobe.errors import PartialLoadError

Grid = tuple[int, int]


def from_positions(shapes: Shapes, prefix: int) -> tuple[Grid, bool, tuple[str, ...]]:
    """Return the patch grid, whether prefix tokens have positions, and what was assumed.

    Args:
        shapes: The encoder, which has absolute positions.
        prefix: Number of prefix tokens.

    Raises:
        PartialLoadError: The positions are no square grid and no size is stated.
    """
    _, _, patch = architecture.patch_embedding(shapes)
    if "pos_embed" not in shapes:
        raise PartialLoadError(
            "pos_embed is missing and there is no table of relative positions",
            "the file is incomplete, or its positions are rotary: then name its model with --arch",
        )
    tokens = shapes.shapes["pos_embed"][-2]
    patches = {True: tokens - prefix, False: tokens}
    for size in (architecture.stated_size(shapes), shapes.asked):
        grid = (size[0] // patch[0], size[1] // patch[1]) if size else (0, 0)
        for embedded, count in patches.items():
            if size and grid[0] * grid[1] == count:
                return grid, embedded, ()
    for embedded, count in patches.items():
        side = architecture.square(count)
        if side is not None:
            without = "" if embedded or not prefix else ", none for the prefix tokens"
            told = f"{count} positions taken as a square grid of {side} x {side}{without} "
            return (side, side), embedded, (f"{told}(--img-size, where it was another)",)
    raise PartialLoadError(
        f"pos_embed has {tokens} positions: with {prefix} prefix tokens neither {tokens - prefix} "
        f"nor {tokens} patches make a square grid",
        "if its images were not square give their size with --img-size; else a prefix token "
        "(cls_token, dist_token, registers) may be missing from the file",
    )


def by_custom(shapes: Shapes, side: int) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid of the stated input, else of the release's, and what was assumed.

    Args:
        shapes: The encoder, which has no positions of its own.
        side: Pixels of the release's input.
    """
    _, _, patch = architecture.patch_embedding(shapes)
    stated = architecture.stated_size(shapes)
    size = stated or (side, side)
    grid = (max(1, size[0] // patch[0]), max(1, size[1] // patch[1]))
    if stated:
        return grid, ()
    rows, cols = architecture.pixels(grid, patch)
    return grid, (
        f"input size {rows} x {cols}: the custom of {shapes.layout.name}, whose positions fit "
        "any size (--img-size overrides)",
    )
