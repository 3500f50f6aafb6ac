"""Random views of one image, drawn from torch's global generator alone.

They draw and compute what torchvision's transforms of the same names do, number for number, at a
quarter of their time: of images as small as 32 px the transforms' own bookkeeping takes the most.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Framing

View = Callable[[Image.Image], Tensor]
Part = Callable[[Image.Image], Image.Image]

_RATIOS = (math.log(3 / 4), math.log(4 / 3))
_ATTEMPTS = 10


class Crop:
    """Random crop to a size, of ratio 3/4 to 4/3 (Szegedy et al. 2015)."""

    def __init__(self, size: tuple[int, int], share: tuple[float, float], resample: int) -> None:
        self.size, self.share, self.resample = size, share, resample

    def __call__(self, image: Image.Image) -> Image.Image:
        """Crop one image and resize the crop."""
        left, top, width, height = self._box(*image.size)
        cropped = image.crop((left, top, left + width, top + height))
        rows, cols = self.size
        if cropped.size == (cols, rows):
            return cropped
        return cropped.resize((cols, rows), Image.Resampling(self.resample))

    def _box(self, across: int, down: int) -> tuple[int, int, int, int]:
        """Draw left, top, width and height; the middle of the image if ten draws do not fit."""
        for _ in range(_ATTEMPTS):
            area = across * down * torch.empty(1).uniform_(*self.share).item()
            ratio = torch.exp(torch.empty(1).uniform_(*_RATIOS)).item()
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= across and 0 < height <= down:
                top = int(torch.randint(0, down - height + 1, size=(1,)))
                left = int(torch.randint(0, across - width + 1, size=(1,)))
                return left, top, width, height
        width, height = _clipped(across, down)
        return (across - width) // 2, (down - height) // 2, width, height


class BorderCrop:
    """Random crop to a size from the image of that size with a black border around it."""

    def __init__(self, size: tuple[int, int], border: int, resample: int) -> None:
        self.size, self.border, self.resample = size, border, resample

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize one image and crop it."""
        rows, cols = self.size
        if image.size != (cols, rows):
            image = image.resize((cols, rows), Image.Resampling(self.resample))
        top, left = (
            int(torch.randint(0, 2 * self.border + 1, size=(1,))) - self.border for _ in range(2)
        )
        return image.crop((left, top, left + cols, top + rows))  # black beyond the image


def _clipped(across: int, down: int) -> tuple[int, int]:
    """Return the largest width and height of an allowed ratio."""
    least, most = 3 / 4, 4 / 3
    if across / down < least:
        return across, round(across / least)
    if across / down > most:
        return round(down * most), down
    return across, down


def crop(
    framing: Framing, least: float, most: float = 1.0, *, interpolation: str = "bilinear"
) -> Crop:
    """Return a random crop to the model's size, of ratio 3/4 to 4/3.

    Args:
        framing: Input size of the model.
        least: Least share of the image's area.
        most: Largest share of the image's area.
        interpolation: How pixels are resampled.

    Raises:
        AttnprobeError: The shares are no interval between 0 and 1.
    """
    if not 0 < least <= most <= 1:
        raise AttnprobeError(
            f"crops from {least} to {most} of an image's area cannot be drawn",
            "set crop_min above 0 and no larger than crop_max, which is at most 1",
        )
    return Crop(framing.size, (least, most), Image.Resampling[interpolation.upper()])


class Composed:
    """Parts in order, then float32 [3, height, width], normalised."""

    def __init__(self, parts: Sequence[Part], framing: Framing) -> None:
        self.parts = tuple(parts)
        self.mean, self.std = (
            np.array(values, dtype=np.float32)[:, None, None]
            for values in (framing.mean, framing.std)
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """Return one view of one image."""
        for part in self.parts:
            image = part(image)
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        pixels *= np.float32(1 / 255)
        pixels -= self.mean
        pixels /= self.std
        return torch.from_numpy(pixels)


def compose(framing: Framing, parts: Sequence[Part]) -> View:
    """Return a view: the parts in order, then float32 [3, height, width], normalised."""
    return Composed(parts, framing)


class Flip:
    """Random horizontal flip."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def __call__(self, image: Image.Image) -> Image.Image:
        """Flip one image, or not."""
        if torch.rand(1) >= self.chance:
            return image
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def flip(chance: float) -> Flip:
    """Return a random horizontal flip."""
    return Flip(chance)


class Blur:
    """Gaussian blur of a radius between two bounds in pixels (SimCLR, appendix A)."""

    def __init__(self, low: float = 0.1, high: float = 2.0) -> None:
        self.low, self.high = low, high

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur one image."""
        share = float(torch.rand(()))
        radius = self.low + (self.high - self.low) * share
        return image.filter(ImageFilter.GaussianBlur(radius))


class Solarize:
    """Invert the pixels of the upper half of the range (BYOL, appendix B)."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Solarize one image."""
        return ImageOps.solarize(image)


class Sometimes:
    """A part that acts with a chance."""

    def __init__(self, part: Any, chance: float) -> None:
        self.part, self.chance = part, chance

    def __call__(self, image: Image.Image) -> Image.Image:
        """Change one image, or not."""
        return image if torch.rand(1) >= self.chance else self.part(image)


def sometimes(part: Any, chance: float) -> Sometimes:
    """Return a part that acts with a chance."""
    return Sometimes(part, chance)
