"""Decoded images in memory, in one array that worker processes share."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from attnprobe.datasets.pictures import Pictures
from attnprobe.datasets.stores import Packed
from attnprobe.errors import ImagesError

LIMIT = 4 * 2**30  # bytes of decoded pixels
_PROBED = 32  # images from which the size of all is guessed


@dataclass(frozen=True)
class Cached:
    """Decoded images.

    Attributes:
        pictures: Where they came from.
        pixels: uint8 pixels of each; none of an image that could not be read.
        sizes: Width and height of each, int32 [n, 2].
    """

    pictures: Pictures
    pixels: Packed
    sizes: np.ndarray

    def read(self, index: int) -> Image.Image:
        """Return one image in RGB.

        Raises:
            ImagesError: It cannot be used.
        """
        width, height = self.sizes[index].tolist()
        if not width:
            return self.pictures.read(index)  # which says why
        return Image.frombytes("RGB", (width, height), self.pixels[index])


def cached(pictures: Pictures, *, limit: int = LIMIT) -> Cached:
    """Decode all images once and keep them.

    Args:
        pictures: The images.
        limit: Bytes that they may take.

    Raises:
        ImagesError: They would take more.
    """
    _check(pictures, _guess(pictures), limit)
    found = bytearray()
    edges, sizes = [0], []
    for index in range(len(pictures)):
        image = _read(pictures, index)
        sizes.append(image.size if image else (0, 0))
        found += image.tobytes() if image else b""
        edges.append(len(found))
        if len(found) > limit:
            _check(pictures, len(found) * len(pictures) // (index + 1), limit)
    pixels = Packed(np.frombuffer(found, dtype=np.uint8), np.array(edges, dtype=np.int64))
    return Cached(pictures, pixels, np.array(sizes, dtype=np.int32))


def _guess(pictures: Pictures) -> int:
    """Guess the bytes of all images from a few that are spread over them."""
    count = min(_PROBED, len(pictures))
    picked = (_read(pictures, i * len(pictures) // count) for i in range(count))
    areas = [image.width * image.height for image in picked if image]
    return 3 * sum(areas) * len(pictures) // max(1, len(areas))


def _check(pictures: Pictures, size: int, limit: int) -> None:
    if size > limit:
        raise ImagesError(
            f"the {len(pictures)} images of {pictures.label} would take about "
            f"{size / 2**30:.1f} GiB of memory, more than {limit / 2**30:.1f} GiB",
            "leave the cache out; it is for small sets",
        )


def _read(pictures: Pictures, index: int) -> Image.Image | None:
    try:
        return pictures.read(index)
    except ImagesError:
        return None
