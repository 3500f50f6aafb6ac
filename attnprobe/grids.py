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
        padding: Rows and columns that the model adds below and to the right so that windows
            tile. No image is there: their tokens are absent.
        late: Whether they are added after the shift (timm), which then wraps image tokens into
            windows of others, and not before it (the official Swin).
        kept: Patches that every image keeps, each its own at random; the others are absent. 0
            for all of them.
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
    padding: tuple[int, int] = (0, 0)
    late: bool = False
    kept: int = 0

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
    def whole(self) -> bool:
        """Whether no token is absent."""
        return self.padding == (0, 0) and not self.kept

    @property
    def plain(self) -> bool:
        """Whether queries are the keys, all there, in solid windows, as attention maps need it."""
        return self.keys is None and self.dilation == (1, 1) and self.whole

    @property
    def tokens(self) -> int:
        """Keys of one query, prefix tokens and absent ones included."""
        return self.prefix + self.patches

    @property
    def shown(self) -> int:
        """Patch keys of one query that every image keeps; those of a window, padding included."""
        return self.kept or self.patches

    @property
    def windows(self) -> tuple[int, int]:
        """Windows from top to bottom and from left to right; (1, 1) for global attention."""
        (rows, cols), (high, wide) = self.extent, self.padding
        return (self.rows + high) // rows, (self.cols + wide) // cols

    def centres(self) -> np.ndarray:
        """Centres (y, x) of a window's queries in input pixels, row-major, float64 [queries, 2]."""
        y, x = np.meshgrid(*self.sides(), indexing="ij")
        return np.stack([y.ravel(), x.ravel()], axis=1)

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of a window's rows, and of its columns, in input pixels, float64."""
        y, x = (
            start + np.arange(count) * float(step * apart)
            for start, count, step, apart in zip(
                self._first, self.extent, self.patch, self.dilation, strict=True
            )
        )
        return y, x

    def sides_of_windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of each window's rows and columns, float64 [windows | 1, rows], [.., columns].

        One for all windows, up to a shift that no distance sees; one each where the shift puts
        tokens side by side that are not neighbours. What is padding lies anywhere.
        """
        if not self.wraps:
            y, x = self.sides()
            return y[None], x[None]
        down, across = (
            start + places * float(step)
            for start, places, step in zip(self._first, self._places(), self.patch, strict=True)
        )
        return np.repeat(down, len(across), axis=0), np.tile(across, (len(down), 1))

    @property
    def wraps(self) -> bool:
        """Whether tokens of both edges of the image are neighbours in a window, unmasked."""
        return self.late and any(map(min, self.padding, self.shift))

    @property
    def _first(self) -> tuple[float, float]:
        return self.origin or (self.patch[0] / 2, self.patch[1] / 2)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the image by window, int [windows down, rows], [.., columns].

        Padding has -1.
        """
        sizes = (self.rows, self.cols)
        sides = zip(sizes, self.padding, self.extent, self.shift, strict=True)
        down, across = (_line(*side, late=self.late) for side in sides)
        return down, across

    def present(self, queries: slice = slice(None)) -> np.ndarray:
        """Which patches of each window are image and not padding, bool [windows | 1, queries]."""
        if self.padding == (0, 0):
            return np.ones((1, len(range(self.queries)[queries])), dtype=bool)
        down, across = (places >= 0 for places in self._places())
        both = down[:, None, :, None] & across[None, :, None, :]
        return both.reshape(-1, self.queries)[:, queries]

    def distances(self) -> np.ndarray:
        """Euclidean distance from queries to keys in input pixels, float32 (see `gaps`).

        >>> float(TokenGrid(1, 2, (16, 16)).distances()[0, 1])
        16.0
        """
        return _distances(self)

    def gaps(self, queries: slice) -> np.ndarray:
        """Rows of `distances`, float32 [queries, n]; [windows, queries, n] where it `wraps`."""
        if self.wraps:
            y, x = self.sides_of_windows()
            rows, cols = self.extent
            centres = np.stack([np.repeat(y, cols, axis=1), np.tile(x, (1, rows))], axis=2)
            gap = centres[:, queries, None, :] - centres[:, None, :, :]  # [windows, queries, n, 2]
        else:
            keys = (self.keys or self).centres()
            gap = self.centres()[queries, None, :] - keys[None, :, :]  # [queries, n, 2]
        return np.sqrt((gap**2).sum(-1)).astype(np.float32)

    def visible(self, queries: slice = slice(None)) -> np.ndarray:
        """Which keys each query may attend to, bool [windows, queries, n].

        All of them, except padding, and in shifted windows that wrap around the image: there
        the shift mask parts what is not adjacent (Liu et al. 2021, fig. 4).
        """
        (rows, cols), (down, across) = self.extent, self.windows
        if self.keys is not None:
            count = len(range(self.queries)[queries])
            return np.ones((down * across, count, self.patches), dtype=bool)
        y = _regions(rows * down, rows, self.shift[0])
        x = _regions(cols * across, cols, self.shift[1])
        region = (3 * y[:, None] + x[None, :]).reshape(down, rows, across, cols)
        window = region.transpose(0, 2, 1, 3).reshape(-1, rows * cols)  # [windows, n]
        seen = window[:, queries, None] == window[:, None, :]
        return seen & self.present()[:, None, :]

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


def _line(size: int, padding: int, window: int, shift: int, *, late: bool) -> np.ndarray:
    """Return which of `size` places lies where in the windows of a side, int [windows, window].

    >>> _line(5, 1, 3, 1, late=False).tolist(), _line(5, 1, 3, 1, late=True).tolist()
    ([[1, 2, 3], [4, -1, 0]], [[1, 2, 3], [4, 0, -1]])
    """
    place = np.arange(size + padding)
    rolled = np.where(place < size, place, -1) if late else place
    turn = size if late else size + padding
    place = np.where(rolled < 0, -1, (rolled + shift) % turn)
    return np.where(place < size, place, -1).reshape(-1, window)


@lru_cache(maxsize=16)
def _distances(grid: TokenGrid) -> np.ndarray:
    """Pair distances of a grid; every layer and batch asks for the same few."""
    (distances := grid.gaps(slice(None))).flags.writeable = False
    return distances
