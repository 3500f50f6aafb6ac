"""Attention maps of a few chosen images, stored small. Torch-free.

A result's arrays `maps` hold, for k chosen images and, with a layer's number as three digits:

    images  edges  index    JPEG files end to end, their k + 1 edges, their rows in `Result.images`
    pool                    tokens a side of one stored key cell, for each layer [layers]
    queries<nnn>            stored query tokens, row-major over the layer's grid, [queries]
    rows<nnn>               code of the mean of A' over each cell of keys, uint8
                            [k, heads, queries, cell rows, cell cols]
    place<nnn>              times uniform: what each token receives from the queries that see it,
                            mean over queries and images, float16 [heads, rows, cols]
    offset<nnn>             mass of A' by displacement (key - query), mean over queries and images,
                            float32 [heads, 2 extent rows - 1, 2 extent cols - 1], sums to one

Keys are those of the query's window, or of the whole grid. A code says how many times uniform
attention a value is, 16 steps an octave: code = 128 + 16 log2(n A'), 0 where A' is nothing.
"""

from dataclasses import dataclass

import numpy as np

from attnprobe.types import TokenGrid

SIDE = 8  # stored queries a side of the grid, at most
CELLS = 16  # stored key cells a side of the window or grid, at most
STEPS, UNIFORM, LARGEST = 16, 128, 255


@dataclass(frozen=True)
class LayerMaps:
    """The maps of one layer, as stored.

    Attributes:
        pool: Tokens a side of one key cell.
        queries: Stored query tokens, int [queries].
        rows: Codes, uint8 [images, heads, queries, cell rows, cell cols].
        place: Times uniform, [heads, rows, cols].
        offset: Mass by displacement, [heads, 2 extent rows - 1, 2 extent cols - 1].
    """

    pool: int
    queries: np.ndarray
    rows: np.ndarray
    place: np.ndarray
    offset: np.ndarray


def encode(ratio: np.ndarray) -> np.ndarray:
    """Return codes of values given as times uniform attention.

    >>> encode(np.array([0.0, 0.5, 1.0, 4.0])).tolist()
    [0, 112, 128, 160]
    """
    positive = np.maximum(ratio, 2.0 ** (-UNIFORM / STEPS))
    code = np.rint(UNIFORM + STEPS * np.log2(positive))
    return np.where(ratio > 0, np.clip(code, 1, LARGEST), 0).astype(np.uint8)


def decode(code: np.ndarray) -> np.ndarray:
    """Return times uniform attention.

    >>> decode(np.array([0, 112, 128, 160], np.uint8)).tolist()
    [0.0, 0.5, 1.0, 4.0]
    """
    ratio = 2.0 ** ((code.astype(np.float64) - UNIFORM) / STEPS)
    return np.where(code == 0, 0.0, ratio)


def chosen_queries(grid: TokenGrid) -> np.ndarray:
    """Return the query tokens to store: at most `SIDE` rows and columns, evenly spaced.

    >>> chosen_queries(TokenGrid(2, 2, (16, 16))).tolist()
    [0, 1, 2, 3]
    """
    rows, cols = (_spread(side) for side in (grid.rows, grid.cols))
    return (rows[:, None] * grid.cols + cols[None, :]).ravel()


def _spread(side: int) -> np.ndarray:
    step = -(-side // SIDE)
    return np.arange(step // 2, side, step)


def pool_of(grid: TokenGrid) -> int:
    """Return the tokens a side of a key cell: one, and more only on large grids.

    >>> pool_of(TokenGrid(14, 14, (16, 16))), pool_of(TokenGrid(37, 37, (14, 14)))
    (1, 3)
    """
    return -(-max(grid.extent) // CELLS)


def window_of(grid: TokenGrid, token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the window of tokens and their position inside it, both row-major.

    Windows are cut from the grid after it was rolled up and left by the shift.

    Args:
        grid: The layer's grid; without windows everything is one window.
        token: Tokens, row-major over the grid.
    """
    rows, cols = grid.extent
    y = (token // grid.cols - grid.shift[0]) % grid.rows
    x = (token % grid.cols - grid.shift[1]) % grid.cols
    window = (y // rows) * (grid.cols // cols) + x // cols
    return window, (y % rows) * cols + x % cols


def split(arrays: dict[str, np.ndarray], layer: int) -> LayerMaps:
    """Return the maps of one layer from a result's arrays."""
    return LayerMaps(
        int(arrays["pool"][layer]),
        *(arrays[f"{name}{layer:03d}"] for name in ("queries", "rows", "place", "offset")),
    )


def join(layers: list[LayerMaps]) -> dict[str, np.ndarray]:
    """Return the arrays of a result from the maps of its layers, images apart."""
    arrays = {"pool": np.array([layer.pool for layer in layers])}
    for index, layer in enumerate(layers):
        for name in ("queries", "rows", "place", "offset"):
            arrays[f"{name}{index:03d}"] = getattr(layer, name)
    return arrays
