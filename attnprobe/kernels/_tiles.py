"""What the blocked kernel stands on: how a layer is cut, and keys and bias of each part.

A tile is a set of images, of their windows and of query rows. Rows are cut only when one window
of one image is too large for a tile: a matrix product over few rows spends its time on
rearranging the keys.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprobe.kernels._gaps import Gaps
from attnprobe.tensors import AttentionInputs, every

MASKED = -1e30  # finite, so that 0 * MASKED is 0 and not NaN


@dataclass(frozen=True)
class Layer:
    """One layer made ready to be cut."""

    q: Tensor  # [images, windows, heads, n, dim]: patch queries
    k: Tensor  # [images, windows, heads, keys, dim]: all keys
    bias: Tensor | None  # [1 | images, 1 | windows, 1 | heads, 1 | n, keys]
    scale: float
    first: int  # prefix keys left out of the rows
    prefix: int  # prefix keys in all
    gaps: Gaps | None  # None where no distance is wanted
    want: frozenset[str]
    queries: slice  # patches that count as queries
    selves: bool  # whether every query is a key too, which no mask removes
    alive: Tensor | None  # [images, windows, n] bool: queries that are there; None for all
    counts: Tensor  # [1 | images] fp64: queries that count, of all windows


class Place(NamedTuple):
    """Where a tile lies in its layer."""

    images: slice
    windows: slice
    rows: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, windows and rows of the tile."""
        return (
            self.images.stop - self.images.start,
            self.windows.stop - self.windows.start,
            self.rows.stop - self.rows.start,
        )


class Tile(NamedTuple):
    """Memory of one tile, written anew for every tile of its shape.

    The columns of `scores` beyond the heads start with the pair distances; those that round
    their number up hold nothing of use.
    """

    scores: Tensor  # [columns, images, windows, rows, keys] fp32
    weights: Tensor  # [heads, images, windows, rows, keys] fp32

    @property
    def logits(self) -> Tensor:
        """Logits of the heads, [heads, images, windows, rows, keys]."""
        return self.scores[: self.weights.shape[0]]


class Cuts(NamedTuple):
    """Equal parts, a short last one apart, of a layer's images, windows and query rows."""

    images: list[slice]
    windows: list[slice]
    rows: list[slice]


def cut(images: int, windows: int, rows: int, *, most: int) -> Cuts:
    """Cut a layer into tiles of at most `most` query rows (but one at the least).

    >>> cut(8, 1, 196, most=400).images
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None), slice(6, 8, None)]
    >>> len(cut(1, 1, 4096, most=64).rows)
    64
    """
    whole = max(1, most // rows)  # windows that fit with all their rows
    return Cuts(
        images=_parts(images, max(1, whole // windows)),
        windows=_parts(windows, min(windows, whole)),
        rows=_parts(rows, max(1, min(rows, most))),
    )


def _parts(size: int, most: int) -> list[slice]:
    count = -(-size // most)
    step = -(-size // count)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def rounded(heads: int) -> int:
    """Return the heads rounded up to a width at which a narrow matrix product is fast.

    Twelve columns take half as long again as sixteen, so that the surplus is free; it carries
    the pair distances.
    """
    step = 4 if heads <= 8 else 16
    return -(-heads // step) * step


def centred_keys(k: Tensor, first: int, *, transposed: bool) -> Tensor:
    """Return keys minus the mean of those from `first` on, fp32 and head by head.

    Args:
        k: [images, windows, heads, keys, dim].
        first: Prefix keys that the mean leaves out.
        transposed: Whether the keys shall lie dim by dim in memory, as a product that is cut
            into many tiles reads them fastest.

    Returns:
        [heads, images x windows, dim, keys].
    """
    k = k.permute(2, 0, 1, 3, 4).flatten(1, 2)  # [heads, images x windows, keys, dim]
    mean = k[:, :, first:].mean(2, keepdim=True, dtype=torch.float32)
    centred = torch.empty(k.shape, dtype=torch.float32, device=k.device)
    torch.sub(k, mean, out=centred)
    swapped = centred.transpose(2, 3)
    return swapped.contiguous() if transposed else swapped


def bias_by_image(bias: Tensor, images: int, windows: int) -> Tensor:
    """Return a bias with one axis for images and one for windows, either of which may be 1.

    Args:
        bias: [1 | windows | images x windows, 1 | heads, 1 | queries, keys].
        images: Images of the batch.
        windows: Windows of one image.
    """
    if len(bias) in (1, windows):  # the same for every image
        return bias.unsqueeze(0)
    return bias.unflatten(0, (images, windows))


def bias_of(bias: Tensor, images: slice, windows: slice, rows: slice) -> Tensor:
    """Return the part of `bias_by_image` that a tile adds to its logits."""
    bias = bias[images] if len(bias) > 1 else bias
    bias = bias[:, windows] if bias.shape[1] > 1 else bias
    return bias[..., rows, :] if bias.shape[3] > 1 else bias


def centred_bias(bias: Tensor, first: int) -> Tensor:
    """Shift each bias row to a maximum of zero, fp32; masked pairs become finite.

    Args:
        bias: [..., queries, keys]; what is not above `MASKED`, such as -inf, masks a pair.
        first: Prefix keys that the maximum leaves out.
    """
    bias = bias.float()
    highest = bias[..., first:].amax(-1, keepdim=True)
    highest = highest.clamp_(min=MASKED)  # a row may be masked entirely
    return (bias - highest).clamp_(min=MASKED)


def without_absent(bias: Tensor | None, present: Tensor | None, prefix: int) -> Tensor | None:
    """Mask absent keys in a bias by image and window.

    Args:
        bias: As `bias_by_image` returns it, or None.
        present: Which patches are there, bool [1 | images, 1 | windows, patches], or None.
        prefix: Prefix keys before them.
    """
    if present is None:
        return bias
    absent = F.pad(~present, (prefix, 0), value=False)
    mask = absent.float().mul_(MASKED)[:, :, None, None]  # [images, windows, 1, 1, keys]
    return mask if bias is None else bias.float() + mask


def prepare(inputs: AttentionInputs, want: frozenset[str], prefix: str) -> Layer:
    """Return a layer ready to be cut; see `attention_stats` for the arguments."""
    grid, batch = inputs.grid, (inputs.images, inputs.windows)
    present = inputs.present
    bias = None if inputs.bias is None else bias_by_image(inputs.bias, *batch)
    queries = every(inputs.step, grid.queries)
    if bias is not None and bias.shape[3] > 1:
        bias = bias[..., grid.prefix :, :][..., queries, :]
    q = inputs.q[:, :, grid.prefix :][:, :, queries].unflatten(0, batch)
    rows = torch.tensor([batch[1] * q.shape[3]], dtype=torch.float64, device=q.device)
    return Layer(
        q=q,
        k=inputs.keys.unflatten(0, batch),
        bias=without_absent(bias, present, grid.prefix),
        scale=inputs.scale,
        first=grid.prefix if prefix == "renormalised" else 0,
        prefix=grid.prefix,
        gaps=Gaps.of(grid, inputs.k.device, queries) if "distance" in want else None,
        want=want,
        queries=queries,
        selves=grid.keys is None and present is None,
        alive=None if present is None else present[..., queries].expand(*batch, -1),
        counts=rows if present is None else inputs.counts(present),
    )


def of_present(layer: Layer, rows: Tensor) -> Tensor:
    """Set the rows of absent queries to zero, [..., images, windows, n]."""
    return rows if layer.alive is None else rows.masked_fill(~layer.alive, 0.0)


def width(layer: Layer) -> int:
    """Return the columns of a tile of logits: heads, pair distances, a round number."""
    heads = layer.q.shape[2]
    least = heads + (layer.gaps is not None)
    return max(least, rounded(heads)) if "kl" in layer.want else least


def allocate(layer: Layer, shape: tuple[int, int, int]) -> Tile:
    """Return the memory of tiles of `shape` images, windows and rows."""
    heads, keys = layer.q.shape[2], layer.k.shape[3] - layer.first
    scores, weights = (
        torch.empty(columns, *shape, keys, dtype=torch.float32, device=layer.k.device)
        for columns in (width(layer), heads)
    )
    scores[heads:].zero_()
    return Tile(scores, weights)
