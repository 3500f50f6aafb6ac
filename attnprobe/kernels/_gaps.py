"""Distances between the patches of a grid, tile by tile."""

from typing import NamedTuple

import torch
from torch import Tensor

from attnprobe.types import TokenGrid


class Gaps(NamedTuple):
    """Pair distances of a grid on demand, so that no matrix of all pairs is ever held.

    Centres are in input pixels, fp32, of each window where they differ from window to window.

    Attributes:
        y: Vertical centres of keys, [1 | windows, key rows].
        x: Horizontal centres of keys, [1 | windows, key columns].
        down: Vertical centres of queries, [1 | windows, query rows].
        right: Horizontal centres of queries, [1 | windows, query columns].
        queries: The patches that count as queries.
    """

    y: Tensor
    x: Tensor
    down: Tensor
    right: Tensor
    queries: slice = slice(0, None, 1)

    @staticmethod
    def of(grid: TokenGrid, device: torch.device, queries: slice) -> "Gaps":
        """Return the gaps from some patches of a grid to all."""
        sides = (*(grid.keys or grid).sides_of_windows(), *grid.sides_of_windows())
        y, x, down, right = (torch.from_numpy(side).float().to(device) for side in sides)
        return Gaps(y, x, down, right, queries)

    def fill(self, out: Tensor, windows: slice, rows: slice) -> None:
        """Write the distance of query patches `rows` to every key in place.

        Args:
            out: fp32 [images, windows, rows, keys]; keys before the patches are prefix, at
                distance 0.
            windows: The windows of `out`.
            rows: Query patches among those that count, row-major.
        """
        sides = (self.y, self.x, self.down, self.right)
        y, x, down, right = (x[windows] if len(x) > 1 else x for x in sides)
        wide = right.shape[1]
        query = torch.arange(rows.start, rows.stop, device=out.device)
        query = self.queries.start + self.queries.step * query
        # [windows, rows, key rows] and [windows, rows, key columns]
        y = (down[:, query // wide, None] - y[:, None]).square_()
        x = (right[:, query % wide, None] - x[:, None]).square_()
        gap = (y.unsqueeze(3) + x.unsqueeze(2)).sqrt_()  # [windows, rows, key rows, key columns]
        prefix = out.shape[-1] - gap[0, 0].numel()
        out[..., :prefix] = 0
        out[..., prefix:] = gap.flatten(2)
