"""Attention maps of a few chosen images, taken while the forward pass runs (see `maps`)."""

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from attnprobe import maps
from attnprobe.errors import ImagesError
from attnprobe.images import ImageBatch, ImageSet, evenly_spaced
from attnprobe.kernels import reference
from attnprobe.parts import SEPARATOR, Arrays, Part
from attnprobe.tensors import AttentionInputs
from attnprobe.types import CheckpointSpec, TokenGrid

CHUNK_BYTES = 64 << 20  # probabilities in memory at once
QUALITY = 85
KINDS = ("rows", "place", "offset")


@dataclass
class MapMaker:
    """Takes the maps of chosen images out of the batches that pass by.

    Attributes:
        numbers: Chosen images by number among the candidates.
        ids: Images chosen by id.
        mean: Per-channel mean that preprocessing subtracted.
        std: Per-channel standard deviation that it divided by.
    """

    numbers: frozenset[int]
    ids: frozenset[str]
    mean: Sequence[float]
    std: Sequence[float]
    _chosen: dict[int, int] = field(default_factory=dict)  # place in the batch: number
    _taken: dict[int, Arrays] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether images of the batch that is under way are chosen."""
        return bool(self._chosen)

    def begin_batch(self, batch: ImageBatch) -> None:
        """Note which images of the coming batch are chosen, and keep their pixels."""
        self._taken = {}
        self._chosen = {
            at: number
            for at, (name, number) in enumerate(zip(batch.ids, batch.numbers, strict=True))
            if name in self.ids or number in self.numbers
        }
        if self._chosen:
            images = batch.x
            for at, number in self._chosen.items():
                self._taken[number] = {"image": self._jpeg(images[at])}

    def on_attention(self, inputs: AttentionInputs) -> None:
        """Take the maps of the chosen images of one layer."""
        grid = inputs.layer.grid
        if grid is None or not grid.plain:
            return
        for at, number in self._chosen.items():
            parts = [_maps_of(weights, grid) for weights in _weights(inputs, at, grid)]
            held = (np.concatenate(part) for part in zip(*parts, strict=True))
            for kind, array in zip(KINDS, held, strict=True):
                self._taken[number][f"{kind}{SEPARATOR}{inputs.layer.index}"] = array

    def take(self) -> dict[int, Arrays]:
        """Return the maps of the pass that just ended, by number of the image."""
        taken, self._taken, self._chosen = self._taken, {}, {}
        return taken

    def _jpeg(self, image: Tensor) -> np.ndarray:
        pixels = image.detach().cpu().float() * torch.tensor(self.std)[:, None, None]
        pixels = (pixels + torch.tensor(self.mean)[:, None, None]).clamp(0, 1)
        file = io.BytesIO()
        array = (pixels * 255).round().byte().permute(1, 2, 0).numpy()  # [height, width, 3]
        Image.fromarray(array).save(file, "JPEG", quality=QUALITY)
        return np.frombuffer(file.getvalue(), dtype=np.uint8)


def map_maker(source: ImageSet, spec: CheckpointSpec, count: int, ids: Sequence[str]) -> MapMaker:
    """Choose the images of which maps are kept: some evenly spaced, and some by id.

    Raises:
        ImagesError: An id is not there.
    """
    if absent := sorted(set(ids) - set(source.ids)):
        raise ImagesError(
            f"no image of {source.label} is called {absent[0]!r}",
            f"name an image as the run's table of images does, such as {source.ids[0]!r}",
        )
    spread = evenly_spaced(source.count, count) if count else []
    return MapMaker(frozenset(spread), frozenset(ids), spec.mean, spec.std)


def note_lost(part: Part, source: ImageSet, ids: Sequence[str]) -> None:
    """Say which of the images that were named for maps could not be read."""
    lost = {source.ids[number] for number in part.skipped}
    for name in sorted(set(ids) & lost):
        warnings.warn(f"{name} cannot be read, so that it has no maps", stacklevel=4)


def arrays_of_maps(part: Part) -> Arrays:
    """Return the arrays `maps` of a result; empty when some layer has no place for its tokens."""
    numbers = sorted(part.seen & set(part.maps))
    if not numbers or any(not (layer.grid and layer.grid.plain) for layer in part.layers):
        return {}
    taken = [part.maps[number] for number in numbers]
    layers = [
        _layer_maps(
            layer.grid, [[held[f"{k}{SEPARATOR}{layer.index}"] for k in KINDS] for held in taken]
        )
        for layer in part.layers
        if layer.grid
    ]
    files = [held["image"] for held in taken]
    return maps.join(layers) | {
        "images": np.concatenate(files),
        "edges": np.cumsum([0, *map(len, files)]),
        "index": np.searchsorted(part.numbers, numbers),
    }


def _layer_maps(grid: TokenGrid, images: list[list[np.ndarray]]) -> maps.LayerMaps:
    """Return one layer's maps: rows of each image, and means over images of the rest."""
    rows, place, offset = zip(*images, strict=True)
    return maps.LayerMaps(
        maps.pool_of(grid),
        maps.chosen_queries(grid).astype(np.int32),
        np.stack(rows),
        np.stack(place).mean(0).astype(np.float16),
        np.stack(offset).mean(0).astype(np.float32),
    )


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
            k=inputs.keys[part, some],
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
