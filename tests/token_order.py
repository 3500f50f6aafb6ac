"""Where tokens lie, found out by changing pixels: an oracle that knows nothing of geometry."""

from typing import Any

import numpy as np
import torch
from torch import nn

from attnprobe.capture import capture
from attnprobe.kernels import reference
from attnprobe.types import TokenGrid


def positions(grid: TokenGrid) -> np.ndarray:
    """Return the row and column of every key by the grid, [windows, n, 2]."""
    keys = grid.keys or grid
    index = np.arange(keys.rows * keys.cols).reshape(keys.rows, keys.cols)
    index = np.roll(index, (-keys.shift[0], -keys.shift[1]), axis=(0, 1))
    rows, cols = keys.extent
    down, across = keys.rows // rows, keys.cols // cols
    if keys.dilation == (1, 1):
        parted = index.reshape(down, rows, across, cols).transpose(0, 2, 1, 3)
    else:
        parted = index.reshape(rows, down, cols, across).transpose(1, 3, 0, 2)
    flat = parted.reshape(down * across, rows * cols)
    return np.stack([flat // keys.cols, flat % keys.cols], axis=-1)


def misplaced(
    model: nn.Module, image: torch.Tensor, *, grid: Any = None, cells: int = 3, slack: int = 0
) -> list[str]:
    """Return the tokens that do not answer to the pixels below their place, in words.

    Some cells of every layer's grid of keys are filled with noise, one after another; the key
    whose logits change most must be the one that lies there.

    Args:
        model: A model in eval mode whose blocks add to what came in.
        image: One image, [1, 3, h, w].
        grid: The grid to state, of a model whose own is not known.
        cells: How many cells of each layer are tried.
        slack: Cells that may lie between; 1 where a stem of overlapping convolutions moves
            every token by a part of a cell.
    """
    before = _logits(model, image, grid)
    wrong = []
    generator = torch.Generator().manual_seed(0)
    for (name, own), logits in before.items():
        keys, places = own.keys or own, positions(own)
        height, width = (int(side) for side in keys.patch)
        for cell in torch.randperm(keys.rows * keys.cols, generator=generator)[:cells].tolist():
            row, col = divmod(cell, keys.cols)
            area = _cell(keys, row, height, 0), _cell(keys, col, width, 1)
            changed = image.clone()
            changed[:, :, *area] = 3 * torch.randn(changed[:, :, *area].shape, generator=generator)
            gap = (_logits(model, changed, grid)[name, own] - logits).abs()
            gap = gap[..., own.prefix :].sum((1, 2))  # [windows, n]
            found = places[np.unravel_index(int(gap.argmax()), gap.shape)]
            if np.abs(found - (row, col)).max() > slack:
                wrong.append(f"{name}: {found.tolist()} answers for {[row, col]}")
    return wrong


def pointed(model: nn.Module) -> nn.Module:
    """Let every convolution that overlaps see only its middle, so that cells are told apart."""
    overlapping = (
        x
        for x in model.modules()
        if isinstance(x, nn.Conv2d) and x.kernel_size != x.stride and max(x.kernel_size) > 1
    )
    for convolution in overlapping:
        mask = torch.zeros(convolution.kernel_size)
        high, wide = ((size - 1) // 2 for size in mask.shape)
        mask[high : mask.shape[0] - high, wide : mask.shape[1] - wide] = 1
        convolution.weight.data *= mask * mask.numel() ** 0.5
    return model


def _cell(keys: TokenGrid, index: int, side: int, axis: int) -> slice:
    """Return the pixels around the centre of a row or column of tokens that are on the image."""
    first = keys.origin[axis] if keys.origin else side / 2
    start = round(first - side / 2) + index * side
    return slice(max(start, 0), start + side)


def _logits(
    model: nn.Module, image: torch.Tensor, grid: Any
) -> dict[tuple[str, TokenGrid], torch.Tensor]:
    """Return logits, [windows, heads, queries, keys], where tokens lie."""
    with torch.inference_mode(), capture(model, grid=grid) as taps:
        model(image)
    placed = [x for x in taps.attention if x.layer.grid is not None]
    return {
        (x.layer.name, x.layer.grid): reference.logits(x, slice(None)).nan_to_num(neginf=-100)
        for x in placed
    }
