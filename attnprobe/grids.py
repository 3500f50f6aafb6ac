"""Where tokens lie on the image: grids, windows, distances between patches."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class TokenGrid:
    """Where the tokens of one attention layer lie on the input image.

    Attributes:
        rows: Patch rows of the whole layer (not of one window).
        cols: Patch columns of the whole layer.
        patch: Height and width of one token in input pixels at this layer's stride.
        prefix: Tokens before the patches that have no place (CLS, distillation, registers).
        window: Rows and columns of one attention window, or None for global attention.
        shift: Rows and columns by which windows are shifted; (0, 0) when they are not.
        names: What the prefix tokens are, in order (cls, dist, register1, ...), where known.
        keys: Where the patch keys lie, if not where the queries do (pooled or finer keys), or
            None. Its windows, if there are any, cover the same pixels.
        dilation: Rows and columns between neighbours of one window; (1, 1) for solid windows.
        origin: Centre (y, x) of the first token in input pixels, or None for the middle of its
            cell. It matters only beside a grid with another origin.
    """

    rows: int
    cols: int
    patch: tuple[float, float]
    prefix: int = 0
    window: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    keys: "TokenGrid | None" = None
    dilation: tuple[int, int] = (1, 1)
    origin: tuple[float, float] | None = None

    @property
    def prefix_names(self) -> tuple[str, ...]:
        """One name a prefix token."""
        return self.names or tuple(f"prefix{index + 1}" for index in range(self.prefix))

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of the queries of one window, or of the grid."""
        return self.window or (self.rows, self.cols)

    @property
    def queries(self) -> int:
        """Patch queries of one window, or of the grid."""
        return self.extent[0] * self.extent[1]

    @property
    def patches(self) -> int:
        """Patch keys of one query."""
        return (self.keys or self).queries

    @property
    def plain(self) -> bool:
        """Whether queries are the keys and windows are solid, as attention maps need it."""
        return self.keys is None and self.dilation == (1, 1)

    @property
    def tokens(self) -> int:
        """Keys of one query, prefix tokens included."""
        return self.prefix + self.patches

    def centres(self) -> np.ndarray:
        """Centres (y, x) of a window's queries in input pixels, row-major, float64 [queries, 2]."""
        y, x = np.meshgrid(*self.sides(), indexing="ij")
        return np.stack([y.ravel(), x.ravel()], axis=1)

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of a window's rows, and of its columns, in input pixels, float64."""
        first = self.origin or (self.patch[0] / 2, self.patch[1] / 2)
        y, x = (
            start + np.arange(count) * float(step * apart)
            for start, count, step, apart in zip(
                first, self.extent, self.patch, self.dilation, strict=True
            )
        )
        return y, x

    def distances(self) -> np.ndarray:
        """Euclidean distance from queries to keys in input pixels, float32 [queries, n].

        >>> float(TokenGrid(1, 2, (16, 16)).distances()[0, 1])
        16.0
        """
        return _distances(self)

    def gaps(self, queries: slice) -> np.ndarray:
        """Rows of `distances`, float32 [queries, n]."""
        keys = (self.keys or self).centres()
        gap = self.centres()[queries, None, :] - keys[None, :, :]  # [queries, n, 2]
        return np.sqrt((gap**2).sum(-1)).astype(np.float32)

    def visible(self, queries: slice = slice(None)) -> np.ndarray:
        """Which keys each query may attend to, bool [windows, queries, n].

        All of them, except in shifted windows that wrap around the image: there the shift
        mask parts what is not adjacent (Liu et al. 2021, fig. 4).
        """
        rows, cols = self.extent
        if self.keys is not None:
            windows = (self.rows // rows) * (self.cols // cols)
            count = len(range(self.queries)[queries])
            return np.ones((windows, count, self.patches), dtype=bool)
        y = _regions(self.rows, rows, self.shift[0])
        x = _regions(self.cols, cols, self.shift[1])
        region = (3 * y[:, None] + x[None, :]).reshape(self.rows // rows, rows, -1, cols)
        window = region.transpose(0, 2, 1, 3).reshape(-1, rows * cols)  # [windows, n]
        return window[:, queries, None] == window[:, None, :]

    def pixels_per_token(self) -> float:
        """Side of one token in input pixels (geometric mean where it is not square)."""
        return float(np.sqrt(np.prod(self.patch)))


def _regions(size: int, window: int, shift: int) -> np.ndarray:
    """Label positions of a cyclically shifted side: untouched, before and after the wrap."""
    label = np.zeros(size, dtype=int)
    if shift:
        label[size - window : size - shift] = 1
        label[size - shift :] = 2
    return label


@lru_cache(maxsize=16)
def _distances(grid: TokenGrid) -> np.ndarray:
    """Pair distances of a grid; every layer and batch asks for the same few."""
    (distances := grid.gaps(slice(None))).flags.writeable = False
    return distances
