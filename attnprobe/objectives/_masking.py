"""Which patches are hidden, and how a backbone is made to hide them.

Backbones stay timm's own modules with their own parameter names: what has to happen between
the patch embedding and the first block happens in forward hooks that do nothing unless the
objective has just told them what to do, so that a trained encoder runs on whole images alone.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Framing


@dataclass(frozen=True)
class Cells:
    """A grid of cells that are hidden or shown as a whole.

    Attributes:
        rows: Cells from top to bottom.
        cols: Cells from left to right.
        hidden: How many cells are hidden.
        repeat: Patches of the model in one cell, (down, across).
    """

    rows: int
    cols: int
    hidden: int
    repeat: tuple[int, int]


def cells(framing: Framing, mask_patch: int, mask_ratio: float) -> Cells:
    """Divide the model's input into square cells of `mask_patch` pixels (SimMIM, section 3.2).

    Args:
        framing: Input size and patch size of the model, in pixels.
        mask_patch: Side of a cell in pixels.
        mask_ratio: Share of cells to hide; their count is rounded up.

    Raises:
        AttnprobeError: Cells do not fill the input, or do not consist of whole patches.

    >>> cells(Framing((192, 192), (4, 4), (0.5,) * 3, (0.5,) * 3), 32, 0.6)
    Cells(rows=6, cols=6, hidden=22, repeat=(8, 8))
    """
    (height, width), (down, across) = framing.size, framing.patch
    if not 0 < mask_ratio <= 1:
        raise AttnprobeError(
            f"mask_ratio is {mask_ratio}, which hides no share of an image",
            "give mask_ratio a value above 0 and at most 1",
        )
    fits = mask_patch > 0 and not (height % mask_patch or width % mask_patch)
    if not fits or mask_patch % down or mask_patch % across:
        raise AttnprobeError(
            f"mask_patch {mask_patch} does not fit: cells of that many pixels have to fill the "
            f"input of size {height} x {width} and consist of whole patches of {down} x {across}",
            f"set mask_patch to {_suggestion(framing)}",
        )
    rows, cols = height // mask_patch, width // mask_patch
    hidden = math.ceil(rows * cols * mask_ratio)
    return Cells(rows, cols, hidden, (mask_patch // down, mask_patch // across))


def _suggestion(framing: Framing) -> str:
    """List the cell sizes that fit, or what else to change."""
    (height, width), patch = framing.size, math.lcm(*framing.patch)
    sides = range(patch, min(height, width) + 1, patch)
    fitting = [str(side) for side in sides if not (height % side or width % side)]
    return f"one of {', '.join(fitting)}" if fitting else "another value and change the input size"


def spread(permutation: Tensor, layout: Cells) -> Tensor:
    """Hide the first cells of a permutation; return bool [patch rows, patch cols]."""
    hidden = torch.zeros(layout.rows * layout.cols, dtype=torch.bool)
    hidden[permutation[: layout.hidden]] = True
    return hidden[_cell_of(layout)]


@lru_cache
def _cell_of(layout: Cells) -> Tensor:
    """Return the cell of each patch, int64 [patch rows, patch cols]."""
    down, across = layout.repeat
    index = torch.arange(layout.rows * layout.cols).view(layout.rows, layout.cols)
    return index.repeat_interleave(down, 0).repeat_interleave(across, 1)


def draw(layout: Cells) -> Tensor:
    """Hide cells at random, from torch's global generator; bool [patch rows, patch cols]."""
    return spread(torch.randperm(layout.rows * layout.cols), layout)


def hidden_pixels(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge a mask of patches, [batch, rows, cols], to pixels, [batch, 1, height, width]."""
    down, across = size[0] // mask.shape[1], size[1] // mask.shape[2]
    return mask.repeat_interleave(down, 1).repeat_interleave(across, 2).unsqueeze(1)


class Cover:
    """Forward hook of a patch embedding that puts a token in place of hidden patches.

    Attributes:
        hidden: bool [batch, rows, cols] while an objective runs, else None.
        token: What replaces a hidden patch, [1, 1, channels].
    """

    def __init__(self) -> None:
        self.hidden: Tensor | None = None
        self.token: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: Any, patches: Tensor) -> Tensor | None:
        """Return [batch, patches, channels] or [batch, rows, cols, channels], covered."""
        if self.hidden is None or self.token is None:
            return None
        hidden = self.hidden if patches.ndim == 4 else self.hidden.flatten(1)
        token = self.token if patches.ndim == 3 else self.token.unsqueeze(0)
        return torch.where(hidden.unsqueeze(-1), token, patches)


class Selection:
    """Forward hook after the positions that keeps prefix tokens and some patches only.

    Attributes:
        kept: int64 [batch, kept], indices of patches, while an objective runs, else None.
        prefix: Number of tokens before the patches.
    """

    def __init__(self, prefix: int) -> None:
        self.kept: Tensor | None = None
        self.prefix = prefix

    def __call__(self, module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor | None:
        """Return [batch, prefix + kept, channels]."""
        if self.kept is None:
            return None
        index = self.kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        patches = tokens[:, self.prefix :].gather(1, index)
        return torch.cat((tokens[:, : self.prefix], patches), 1)


def shuffle(noise: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the patches of least noise (MAE, appendix A.1).

    Args:
        noise: [batch, patches].
        kept: Patches to keep of every image.

    Returns:
        Indices of kept patches, int64 [batch, kept]; the inverse permutation, int64
        [batch, patches]; and which patches are hidden, bool [batch, patches].
    """
    order = torch.argsort(noise, dim=1, stable=True)
    restore = torch.argsort(order, dim=1)
    return order[:, :kept], restore, restore >= kept
