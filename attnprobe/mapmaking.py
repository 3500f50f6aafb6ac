"""Attention maps of a few chosen images, taken while the forward pass runs (see `maps`)."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from attnprobe import maps
from attnprobe.kernels import reference
from attnprobe.tensors import AttentionInputs
from attnprobe.types import TokenGrid

CHUNK_BYTES = 64 << 20  # probabilities in memory at once
QUALITY = 85


@dataclass
class _Sums:
    """One layer's maps so far: rows of each image, and sums over images."""

    grid: TokenGrid
    rows: list[np.ndarray] = field(default_factory=list)
    place: np.ndarray | float = 0.0
    offset: np.ndarray | float = 0.0


@dataclass
class MapMaker:
    """Takes the maps of chosen images out of the batches that pass by.

    Attributes:
        positions: Chosen images by their number among the images read.
        ids: Images chosen by id.
        mean: Per-channel mean that preprocessing subtracted.
        std: Per-channel standard deviation that it divided by.
    """

    positions: frozenset[int]
    ids: frozenset[str]
    mean: Sequence[float]
    std: Sequence[float]
    _seen: int = 0
    _chosen: list[int] = field(default_factory=list)
    _index: list[int] = field(default_factory=list)
    _files: list[bytes] = field(default_factory=list)
    _layers: dict[int, _Sums] = field(default_factory=dict)

    def begin_batch(self, ids: Sequence[str], images: Tensor) -> None:
        """Note which images of the coming batch are chosen, and keep their pixels.

        Args:
            ids: One id an image.
            images: Preprocessed images, [n, 3, height, width].
        """
        self._chosen = [
            at
            for at, name in enumerate(ids)
            if name in self.ids or self._seen + at in self.positions
        ]
        for at in self._chosen:
            self._index.append(self._seen + at)
            self._files.append(self._jpeg(images[at]))
        self._seen += len(ids)

    def on_attention(self, inputs: AttentionInputs) -> None:
        """Take the maps of the chosen images of one layer."""
        grid = inputs.layer.grid
        if grid is None or not self._chosen:
            return
        sums = self._layers.setdefault(inputs.layer.index, _Sums(grid))
        for at in self._chosen:
            parts = [_maps_of(weights, grid) for weights in _weights(inputs, at, grid)]
            rows, place, offset = (np.concatenate(part) for part in zip(*parts, strict=True))
            sums.rows.append(rows)
            sums.place = sums.place + place
            sums.offset = sums.offset + offset

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays `maps` of a result; empty when no layer has a place for its tokens."""
        count = len(self._files)
        if not count or list(self._layers) != list(range(len(self._layers))):
            return {}
        layers = [
            maps.LayerMaps(
                maps.pool_of(sums.grid),
                maps.chosen_queries(sums.grid).astype(np.int32),
                np.stack(sums.rows),
                (sums.place / count).astype(np.float16),  # type: ignore[union-attr]
                (sums.offset / count).astype(np.float32),  # type: ignore[union-attr]
            )
            for sums in self._layers.values()
        ]
        return maps.join(layers) | {
            "images": np.frombuffer(b"".join(self._files), dtype=np.uint8),
            "edges": np.cumsum([0, *map(len, self._files)]),
            "index": np.array(self._index),
        }

    def _jpeg(self, image: Tensor) -> bytes:
        pixels = image.detach().cpu().float() * torch.tensor(self.std)[:, None, None]
        pixels = (pixels + torch.tensor(self.mean)[:, None, None]).clamp(0, 1)
        file = io.BytesIO()
        array = (pixels * 255).round().byte().permute(1, 2, 0).numpy()  # [height, width, 3]
        Image.fromarray(array).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()


def _weights(inputs: AttentionInputs, at: int, grid: TokenGrid) -> Iterator[Tensor]:
    """Yield A' of image `at`, some heads at a time, float64 [windows, heads, n, n]."""
    windows, heads = inputs.windows, inputs.q.shape[1]
    part = slice(at * windows, (at + 1) * windows)
    bias = inputs.bias
    if bias is not None and bias.shape[0] == len(inputs.q):
        bias = bias[part]
    step = max(1, CHUNK_BYTES // (8 * windows * grid.tokens**2))
    for first in range(0, heads, step):
        some = slice(first, first + step)
        one = replace(
            inputs,
            images=1,
            q=inputs.q[part, some],
            k=inputs.k[part, some],
            bias=bias if bias is None or bias.shape[1] == 1 else bias[:, some],
        )
        scores = reference.logits(one, slice(0, windows))
        yield reference.patch_rows(scores, grid, "renormalised")[0]


def _maps_of(weights: Tensor, grid: TokenGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes of the stored rows, place and offset of some heads of one image."""
    visible = torch.from_numpy(grid.visible()).to(weights)  # [windows, n, n]
    ratio = weights * visible.sum(-1, keepdim=True).unsqueeze(1)
    window, inside = (
        torch.from_numpy(x).to(weights.device)
        for x in maps.window_of(grid, np.arange(grid.rows * grid.cols))
    )
    queries = torch.from_numpy(maps.chosen_queries(grid)).to(weights.device)
    rows = ratio[window[queries], :, inside[queries]]  # [queries, heads, n]
    seen = (ratio.sum(2) / visible.sum(1).unsqueeze(1))[window, :, inside]  # [tokens, heads]
    heads = weights.shape[1]
    cells = _cells(rows.transpose(0, 1).unflatten(-1, grid.extent), maps.pool_of(grid))
    return (
        maps.encode(cells.cpu().numpy()),
        seen.T.reshape(heads, grid.rows, grid.cols).cpu().numpy(),
        _by_displacement(weights.mean(0), grid).cpu().numpy(),
    )


def _cells(rows: Tensor, pool: int) -> Tensor:
    """Average keys over square cells; cells at the lower and right edge may be smaller."""
    if pool == 1:
        return rows
    flat = rows.flatten(0, 1).unsqueeze(1)
    cells = F.avg_pool2d(flat, pool, ceil_mode=True, count_include_pad=False)
    return cells.squeeze(1).unflatten(0, rows.shape[:2])


def _by_displacement(weights: Tensor, grid: TokenGrid) -> Tensor:
    """Sum A' [heads, n, n] by displacement from query to key, averaged over queries."""
    rows, cols = grid.extent
    token = torch.arange(rows * cols, device=weights.device)
    y, x = token // cols, token % cols
    down = y[None, :] - y[:, None] + rows - 1
    right = x[None, :] - x[:, None] + cols - 1
    place = (down * (2 * cols - 1) + right).flatten()  # [n * n]
    sums = weights.new_zeros(len(weights), (2 * rows - 1) * (2 * cols - 1))
    sums.index_add_(1, place, weights.flatten(1))
    return sums.unflatten(1, (2 * rows - 1, 2 * cols - 1)) / len(token)
