"""Random views of one image, drawn from torch's global generator alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import InterpolationMode

from attnprobe.errors import AttnprobeError
from attnprobe.objectives import Framing

View = Callable[[Image.Image], Tensor]


def crop(
    framing: Framing, least: float, most: float = 1.0, *, interpolation: str = "bilinear"
) -> transforms.Transform:
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
    return transforms.RandomResizedCrop(
        framing.size, scale=(least, most), interpolation=InterpolationMode(interpolation)
    )


def compose(framing: Framing, parts: Sequence[Any]) -> View:
    """Return a view: the parts in order, then float32 [3, height, width], normalised."""
    ending = (
        transforms.ToImage(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize(list(framing.mean), list(framing.std)),
        transforms.ToPureTensor(),
    )
    return transforms.Compose([*parts, *ending])


def flip(chance: float) -> transforms.Transform:
    """Return a random horizontal flip."""
    return transforms.RandomHorizontalFlip(chance)


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


def sometimes(part: Any, chance: float) -> transforms.Transform:
    """Return a transform that acts with a chance."""
    return transforms.RandomApply([part], p=chance)
