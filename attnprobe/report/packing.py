"""Attention maps small enough for a page: coarser codes first, then fewer images and queries.

Bytes of one layer, before `pack` makes text of them:

    uint16 [heads, quantiles]   distance of single images, in steps of the layer's `scale`
    uint16 [heads, bins]        mass by distance, in 1 / 65535
    uint8  [heads, rows, cols]  code of what each token receives
    uint8  [heads, down, right] code of the mass by displacement, of cells of `pool` tokens
    uint8  [images, heads, queries, cell rows, cell cols]  code of each stored row

A code counts steps of a part of an octave; 8 octaves of them lie below times uniform = 1. What
is less than 1/64 of uniform stands as 1/64, which saves space; 0 is nothing at all.
"""

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from attnprobe import maps
from attnprobe.report.layerparts import LayerParts
from attnprobe.types import TokenGrid

FLOOR = 2 * maps.STEPS  # stored code of 1/64 of uniform attention
MEAN_STEPS = 8  # steps an octave of maps that are means
WHOLE = 65535
EFFORT = 6  # of deflate: the last per cent would take five times as long
HARMLESS = str.maketrans("<>&", ".:,")  # base 85 without what HTML reads
BUDGET = 4_700_000  # characters for the heads of two ViT-B
HEADS = 2 * 12 * 12
FURTHER = 7_000  # characters for each head beyond them
MOST = 12_000_000


@dataclass(frozen=True)
class Level:
    """How much of the rows is kept.

    Attributes:
        steps: Steps of the codes in one octave.
        images: Images kept at most, or None for all.
        thin: One of how many rows and columns of stored queries; 0 keeps no rows at all.
    """

    steps: int
    images: int | None = None
    thin: int = 1


LEVELS = (
    Level(8),
    Level(4),
    Level(2),
    Level(2, 8),
    Level(2, 4),
    Level(2, 3),
    Level(2, 2),
    Level(2, 1),
    Level(2, 1, 2),
    Level(2, 1, 4),
    Level(2, 0, 0),
)


def budget(heads: int) -> int:
    """Return how many characters the maps of a page may take, by the heads it shows.

    >>> budget(2 * 12 * 12), budget(2 * 24 * 16)
    (4700000, 8060000)
    """
    return min(MOST, BUDGET + FURTHER * max(0, heads - HEADS))


def pack(data: bytes, effort: int = EFFORT) -> str:
    """Return data as text for a page: deflated, in base 85 without marks of HTML.

    >>> set("<>&") & set(pack(bytes(range(256))))
    set()
    """
    return base64.b85encode(zlib.compress(data, effort)).decode().translate(HARMLESS)


def fit(
    layers: list[LayerParts], photographs: list[list[int]], limit: int
) -> tuple[Level, list[str]]:
    """Return the first level at which all layers together fit, and their texts.

    Args:
        layers: Layers of all models.
        photographs: Characters that each image takes beside them, by model.
        limit: Characters that everything together may take.
    """
    most = max((len(sizes) for sizes in photographs), default=0)
    for level in LEVELS[:-1]:
        if level.images is not None and level.images >= most > 1:
            continue  # as many images as the level before
        beside = sum(sum(sizes[: level.images]) for sizes in photographs)
        texts = list(_within(_texts(layers, level), limit - beside))
        if len(texts) == len(layers):
            return level, texts
    return LEVELS[-1], list(_texts(layers, LEVELS[-1]))


def kept_queries(queries: np.ndarray, cols: int, thin: int) -> np.ndarray:
    """Return which stored queries a level keeps, bool [queries].

    >>> kept_queries(np.arange(16), 4, 2).nonzero()[0].tolist()
    [5, 7, 13, 15]
    """
    if not thin:
        return np.zeros(len(queries), dtype=bool)
    y, x = np.unique(queries // cols), np.unique(queries % cols)
    some = [side[min(thin // 2, len(side) - 1) :: thin] for side in (y, x)]
    return np.isin(queries // cols, some[0]) & np.isin(queries % cols, some[1])


def coarse(code: np.ndarray, steps: int) -> np.ndarray:
    """Return codes of `steps` an octave from stored codes.

    >>> coarse(np.array([0, 1, 128, 144], np.uint8), 4).tolist()
    [0, 8, 32, 36]
    """
    factor = maps.STEPS // steps
    every = np.arange(maps.LARGEST + 1).clip(FLOOR)
    known = np.minimum(np.rint(every / factor), maps.LARGEST // factor).astype(np.uint8)
    known[0] = 0
    return known[code]


def uniform_offset(grid: TokenGrid) -> np.ndarray:
    """Return the mass by displacement of uniform attention over all keys that a query sees.

    Args:
        grid: The layer's grid; what a shift mask hides carries nothing.

    Returns:
        Float64 [2 extent rows - 1, 2 extent cols - 1], sums to one.
    """
    (down, right), (dy, dx) = grid.extent, grid.shift
    y = _uniform_side(TokenGrid(grid.rows, 1, (1, 1), window=(down, 1), shift=(dy, 0)))
    x = _uniform_side(TokenGrid(grid.cols, 1, (1, 1), window=(right, 1), shift=(dx, 0)))
    return y[:, None] * x[None, :]


def bins_of(grid: TokenGrid) -> np.ndarray:
    """Return the distance bin of each displacement; bins are one token wide, 0 is the query."""
    down, right = (np.arange(1 - side, side) for side in grid.extent)
    gap = np.hypot(down[:, None] * grid.patch[0], right[None, :] * grid.patch[1])
    return np.rint(gap / grid.pixels_per_token()).astype(int)


def by_distance(offset: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """Return the mass by distance, [..., bins], from the mass by displacement."""
    bins = bins_of(grid)
    flat = offset.reshape(-1, bins.size)
    sums = [np.bincount(bins.ravel(), weights=row, minlength=bins.max() + 1) for row in flat]
    return np.stack(sums).reshape(*offset.shape[:-2], -1)


def by_cell(offset: np.ndarray, pool: int) -> np.ndarray:
    """Return sums of the mass by displacement over cells; the middle one holds the query."""
    for axis in (-2, -1):
        side = offset.shape[axis] // 2
        step = np.arange(-side, side + 1)
        cell = np.sign(step) * ((np.abs(step) + pool / 2) // pool).astype(int)
        edges = np.flatnonzero(np.diff(cell, prepend=cell[0] - 1))
        offset = np.add.reduceat(offset, edges, axis=axis)
    return offset


def _uniform_side(grid: TokenGrid) -> np.ndarray:
    """Return the mass by displacement along one side."""
    visible = grid.visible()
    weight = (visible / visible.sum(-1, keepdims=True)).mean(0)
    side = len(weight)
    return np.array([np.trace(weight, gap) for gap in range(1 - side, side)]) / side


def _within(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Yield texts until their sum exceeds the limit."""
    total = 0
    for text in texts:
        total += len(text)
        if total > limit:
            return
        yield text


def _texts(layers: list[LayerParts], level: Level) -> Iterator[str]:
    for layer in layers:
        data = b"".join(part.tobytes() for part in _parts(layer, level))
        yield pack(data)


def _parts(layer: LayerParts, level: Level) -> Iterator[np.ndarray]:
    yield layer.quantiles.astype("<u2")
    stored, grid = layer.maps, layer.grid
    if stored is None or grid is None:
        return
    mass = by_distance(stored.offset.astype(np.float64), grid)
    yield np.rint(np.clip(mass, 0, 1) * WHOLE).astype("<u2")
    yield coarse(maps.encode(stored.place.astype(np.float64)), MEAN_STEPS)
    even = by_cell(uniform_offset(grid), stored.pool)
    ratio = by_cell(stored.offset.astype(np.float64), stored.pool) / even
    yield coarse(maps.encode(ratio), MEAN_STEPS)
    keep = kept_queries(stored.queries, grid.cols, level.thin)
    yield coarse(stored.rows[: level.images, :, keep], level.steps)
