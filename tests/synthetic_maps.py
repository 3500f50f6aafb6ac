"""Attention maps by the layout of `attnprobe.maps`, from attention made of simple parts.

A head attends to what is near, to what looks alike, to one sink, and to noise, in its own
proportions. Nothing here imports torch, and windows are rolled, not looked up.
"""

import base64
import io
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from attnprobe import maps
from attnprobe.types import TokenGrid

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "images"
VIT = TokenGrid(14, 14, (16.0, 16.0), 1)
SWIN = TokenGrid(14, 14, (16.0, 16.0), 0, (7, 7))
SHIFTED = replace(SWIN, shift=(3, 3))
POOLED = TokenGrid(37, 37, (14.0, 14.0), 5)


def synthetic_maps(grids, heads=3, images=2, seed=0):
    """Arrays `maps` of layers with these grids; `heads` is a number or one a layer."""
    counts = [heads] * len(grids) if isinstance(heads, int) else heads
    size = [round(side * step) for side, step in zip(shape(grids[0]), grids[0].patch, strict=True)]
    photos = [photograph(n, size) for n in range(images)]
    files = [_jpeg(photo) for photo in photos]
    layers = [
        _stored(attention(grid, count, photos, seed + n), grid)
        for n, (grid, count) in enumerate(zip(grids, counts, strict=True))
    ]
    return maps.join(layers) | {
        "images": np.frombuffer(b"".join(files), dtype=np.uint8),
        "edges": np.cumsum([0, *map(len, files)]),
        "index": np.arange(images),
    }


def with_maps(result, grids=None, **options):
    """The result with maps; its layers get the geometry of `grids` where they are given."""
    layers = result.layers if grids is None else described(result.layers, grids)
    found = [grid_of(row) for row in layers.itertuples()]
    arrays = synthetic_maps(found, layers.heads.tolist(), **options)
    return replace(result, layers=layers, arrays={**result.arrays, "maps": arrays})


def grid_of(row):
    window = (row.window_rows, row.window_cols) if row.window_rows else None
    shift = (row.shift_rows, row.shift_cols)
    return TokenGrid(row.rows, row.cols, (row.patch_h, row.patch_w), row.prefix, window, shift)


def described(layers, grids):
    """The table of layers with other grids, one a layer."""
    known = [
        {
            "rows": grid.rows,
            "cols": grid.cols,
            "patch_h": grid.patch[0],
            "patch_w": grid.patch[1],
            "prefix": grid.prefix,
            "window_rows": (grid.window or (0, 0))[0],
            "window_cols": (grid.window or (0, 0))[1],
            "shift_rows": grid.shift[0],
            "shift_cols": grid.shift[1],
            "patches": grid.patches,
            "distance_uniform": _mean_over_seen(grid, grid.distances()),
            "distance_max": float(grid.distances().max()),
            "entropy_uniform": float(np.log(grid.visible().sum(-1)).mean()),
        }
        for grid in grids
    ]
    return layers.assign(**pd.DataFrame(known))


def unpacked(text):
    """The bytes behind a packed text of a page."""
    return zlib.decompress(base64.b85decode(text.translate(str.maketrans(".:,", "<>&"))))


def shape(grid):
    return grid.rows, grid.cols


def photograph(number, size):
    path = sorted(PHOTOGRAPHS.glob("*.jpg"))[7 * number + 3]
    with Image.open(path) as image:
        return image.convert("RGB").resize((size[1], size[0]))


def attention(grid, heads, photos, seed):
    """A' of every window, [images, windows, heads, n, n]; zero where a key is not seen."""
    rng = np.random.default_rng(seed)
    token = windows(grid)  # [windows, n]
    place = np.stack(np.divmod(token, grid.cols), -1)  # [windows, n, 2]
    gap = ((place[:, :, None] - place[:, None]) ** 2).sum(-1)
    near, alike, sink, noise = rng.uniform(0, 1, (4, heads))
    reach = 1 + max(grid.extent) * near**3
    chosen = rng.integers(0, grid.rows * grid.cols, heads)
    whole = []
    for photo in photos:
        grey = np.asarray(photo.convert("L").resize((grid.cols, grid.rows)), float).ravel() / 255
        like = (grey[token][:, :, None] - grey[token][:, None]) ** 2
        score = [
            -gap / (2 * reach[head] ** 2)
            - 40 * alike[head] ** 2 * like
            + 3 * sink[head] ** 2 * (token == chosen[head])[:, None]
            + 0.6 * noise[head] * rng.standard_normal(gap.shape)
            for head in range(heads)
        ]
        weight = np.exp(np.stack(score, 1)) * grid.visible()[:, None]
        whole.append(weight / weight.sum(-1, keepdims=True))
    return np.stack(whole)


def windows(grid):
    """Tokens of every window, [windows, n]: the grid rolled up and left, then cut."""
    rows, cols = grid.extent
    rolled = np.roll(
        np.arange(grid.rows * grid.cols).reshape(shape(grid)),
        (-grid.shift[0], -grid.shift[1]),
        (0, 1),
    )
    cut = rolled.reshape(grid.rows // rows, rows, grid.cols // cols, cols)
    return cut.transpose(0, 2, 1, 3).reshape(-1, rows * cols)


def _stored(weights, grid):
    visible = grid.visible()
    ratio = weights * visible.sum(-1)[:, None, :, None]
    token = windows(grid)
    inverse = np.argsort(token.ravel())
    queries = maps.chosen_queries(grid)
    flat = np.moveaxis(ratio, 2, 1).reshape(len(weights), ratio.shape[2], -1, grid.patches)
    rows = flat[:, :, inverse][:, :, queries]  # [images, heads, queries, n]
    seen = ratio.sum(3) / visible.sum(1)[:, None]  # [images, windows, heads, n]
    place = np.moveaxis(seen, 2, 1).reshape(len(weights), ratio.shape[2], -1)[:, :, inverse]
    pool = maps.pool_of(grid)
    return maps.LayerMaps(
        pool,
        queries.astype(np.int32),
        maps.encode(_cells(rows.reshape(*rows.shape[:3], *grid.extent), pool)),
        place.mean(0).reshape(-1, *shape(grid)).astype(np.float16),
        _offset(weights.mean((0, 1)), grid).astype(np.float32),
    )


def _cells(rows, pool):
    down, right = (-(-side // pool) for side in rows.shape[-2:])
    cells = np.empty((*rows.shape[:-2], down, right))
    for y in range(down):
        for x in range(right):
            part = rows[..., y * pool : (y + 1) * pool, x * pool : (x + 1) * pool]
            cells[..., y, x] = part.mean((-2, -1))
    return cells


def _offset(weights, grid):
    """Mass by displacement: row q of a head is added where its query lies in the middle."""
    rows, cols = grid.extent
    sums = np.zeros((len(weights), 2 * rows - 1, 2 * cols - 1))
    for query in range(rows * cols):
        y, x = rows - 1 - query // cols, cols - 1 - query % cols
        sums[:, y : y + rows, x : x + cols] += weights[:, query].reshape(-1, rows, cols)
    return sums / (rows * cols)


def _mean_over_seen(grid, values):
    visible = grid.visible()
    return float(((visible * values).sum(-1) / visible.sum(-1)).mean())


def _jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
