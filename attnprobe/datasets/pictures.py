"""A set of images that are read one by one, with labels where there are any."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from PIL import Image

from attnprobe.errors import ImagesError
from attnprobe.images.decoding import decode, to_rgb


class Images(Protocol):
    """Where images come from."""

    @property
    def hashed(self) -> str:
        """Return "contents" or "listing"."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what an image is called in messages."""
        ...

    def read(self, index: int) -> bytes | Image.Image:
        """Return an image file, or an image that is decoded already."""
        ...

    def facts(self) -> Iterable[Any]:
        """Yield what tells this set from others, as buffers."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Images in a fixed order; build it with `open_pictures`.

    Attributes:
        label: What the user gave as source.
        images: Where they come from.
        labels: Class of each image, int64 [n], or None without labels.
        classes: Names of the classes, in order of their numbers; () without labels.
    """

    label: str
    images: Images
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Image.Image:
        """Return one image, upright, in RGB.

        Raises:
            ImagesError: It cannot be used; the cause is the reason in a few words.
        """
        return upright(self.images.read(index))

    def name(self, index: int) -> str:
        """Return what an image is called in messages."""
        return self.images.name(index)

    @property
    def hashed(self) -> str:
        """What `sha256` is over, beside labels: "contents", or "listing" (names and sizes)."""
        return self.images.hashed

    @cached_property
    def sha256(self) -> str:
        """Hash over labels and either contents or listing, computed when first asked for."""
        found = hashlib.sha256(f"{self.hashed}\0{len(self)}\0".encode())
        for fact in self.images.facts():
            found.update(fact)
        if self.labels is not None:
            found.update(self.labels.astype("<i8").tobytes())
            found.update("\0".join(self.classes).encode())
        return found.hexdigest()


def upright(found: bytes | Image.Image) -> Image.Image:
    """Return an image file, or an image that is decoded already, upright and in RGB.

    Raises:
        ImagesError: It cannot be used; the cause is the reason in a few words.
    """
    return decode(found) if isinstance(found, bytes) else to_rgb(found)


def labelled(
    label: str, images: Images, numbers: Any = None, classes: Sequence[str] = ()
) -> Pictures:
    """Return pictures whose labels have been checked; classes without names are named by number.

    Args:
        label: What the user gave as source.
        images: Where they come from.
        numbers: One class number an image, or None.
        classes: Names of the classes.

    Raises:
        ImagesError: There are no images, or the labels do not fit them or the classes.
    """
    if not len(images):
        raise ImagesError(f"{label} holds no images", "check the path or the split")
    if numbers is None:
        return Pictures(label, images)
    found = np.asarray(numbers)
    if found.shape != (len(images),) or found.dtype.kind not in "iu":
        raise ImagesError(
            f"{label} has labels of shape {found.shape} and type {found.dtype} for "
            f"{len(images)} images",
            "store one whole number an image",
        )
    found = found.astype(np.int64)
    names = tuple(map(str, classes)) or tuple(map(str, range(int(found.max()) + 1)))
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= len(names):
        raise ImagesError(
            f"{label} has labels from {low} to {high} for {len(names)} classes",
            "number the classes from 0",
        )
    return Pictures(label, images, found, names)
