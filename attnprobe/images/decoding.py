"""From the bytes of an image file to upright RGB, and from there to a model's input.

What cannot be used is refused with a reason of a few words.
"""

import io
import re
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from timm.data.transforms_factory import create_transform
from torch import Tensor

from attnprobe.errors import ImagesError
from attnprobe.types import CheckpointSpec

Image.init()
# a closed list, because pillow runs other programs for some formats (EPS) whatever the suffix
FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
    if name in Image.OPEN
)
SUFFIXES = frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS
)
DEFINITION = (
    "first frame, EXIF orientation applied, 8-bit RGB (transparency over white, 16-bit grey / 257)"
)
SMALLEST_SIDE = 8
LARGEST_RATIO = 100  # beyond it, resizing the short side makes the long one huge


def decode(data: bytes) -> Image.Image:
    """Upright RGB image from the bytes of one image file; no warning escapes.

    Raises:
        ImagesError: The bytes cannot be used; the cause is the reason in a few words.
    """
    if not data:
        raise ImagesError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image)
                image.load()
                return to_rgb(_upright(image))
    except ImagesError:
        raise
    except UnidentifiedImageError as error:  # its message holds a memory address
        raise ImagesError("not an image, or of a format that pillow cannot read") from error
    except Image.DecompressionBombError as error:
        raise ImagesError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from error
    except Exception as error:  # pillow's readers raise anything on broken files
        raise ImagesError(f"cannot be decoded ({_one_line(error)})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of pillow's modes to RGB without clipping or uncovering hidden colours.

    >>> to_rgb(Image.new("LA", (8, 8), (0, 0))).getpixel((0, 0))
    (255, 255, 255)

    Raises:
        ImagesError: The range of the pixel values is unknown.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        grey = np.asarray(image).astype(np.float64) / 257  # 65535 becomes 255
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"I", "F"}:
        raise ImagesError(f"32-bit pixels (mode {image.mode}) have no known range")
    if image.has_transparency_data:
        cover = image.convert("RGBA")
        white = Image.new("RGBA", cover.size, "white")
        return Image.alpha_composite(white, cover).convert("RGB")
    return image.convert("RGB")


def preprocessing(spec: CheckpointSpec) -> tuple[Any, dict[str, str]]:
    """The transform from RGB image to uint8 [3, h, w], timm's for evaluation, and its steps.

    The last two steps, to floats and normalised, are made on the device: see `normalise`.

    >>> preprocessing(CheckpointSpec("any", "any"))[1]["resize"]
    'bicubic, short side 248'
    """
    transform: Any = create_transform(
        spec.input_size,
        is_training=False,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        use_prefetcher=True,  # timm's word for: leave the pixels as bytes
    )
    size = transform.transforms[0].size
    height, width = spec.input_size[1:]
    fit = f"short side {size}" if isinstance(size, int) else f"to cover {size[0]} x {size[1]}"
    return transform, {
        "decode": DEFINITION,
        "resize": f"{spec.interpolation}, {fit}",
        "crop": f"centre {height} x {width}",
        "scale": "0 to 1",
        "normalise": f"mean {tuple(spec.mean)}, std {tuple(spec.std)}",
    }


def normalise(pixels: Tensor, spec: CheckpointSpec) -> Tensor:
    """Return uint8 pixels as the floats that a model takes, bit for bit as torchvision does."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (spec.mean, spec.std)
    )
    return pixels.float().div_(255).sub_(mean).div_(std)


def _check_size(image: Image.Image) -> None:
    """Refuse sizes that mean a bomb, a tracking pixel or a ruler, before any pixel is decoded."""
    short, long = sorted(image.size)
    size = f"{image.width} x {image.height} px"
    if Image.MAX_IMAGE_PIXELS is not None and short * long > Image.MAX_IMAGE_PIXELS:
        raise ImagesError(f"{size}: more than {Image.MAX_IMAGE_PIXELS} pixels")
    if short < SMALLEST_SIDE:
        raise ImagesError(f"{size}: a side is under {SMALLEST_SIDE} px")
    if long > LARGEST_RATIO * short:
        raise ImagesError(f"{size}: one side is over {LARGEST_RATIO} times the other")


def _upright(image: Image.Image) -> Image.Image:
    file_format = image.format
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - a broken EXIF block must not cost a readable image
        return image
    turned.format = file_format
    return turned


def _one_line(error: Exception) -> str:
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    return text[:120] or type(error).__name__
