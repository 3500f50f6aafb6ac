"""Training images as views, each drawn from generators seeded by (seed, epoch, index)."""

import hashlib
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from attnprobe.datasets.caching import Cached, cached
from attnprobe.datasets.pictures import Pictures
from attnprobe.errors import ImagesError

ATTEMPTS = 20  # other images tried in place of a broken one
Key = tuple[int, int]  # epoch, index


class TrainSet(Dataset):
    """Views of images, by (epoch, index).

    An image that cannot be read is replaced by another one, which depends on (seed, epoch,
    index) too. In the main process the generators of torch, random and numpy are left as
    they were; a worker process has no other use for them.

    Args:
        pictures: The images.
        views: Image -> tensors by name; may draw from torch's CPU generator, random and
            numpy.random.
        seed: Of everything that views draw.
        cache: Keep decoded images in memory.

    Raises:
        ImagesError: The images are too large to be kept in memory.
    """

    def __init__(
        self,
        pictures: Pictures,
        views: Callable[[Image.Image], dict[str, Tensor]],
        *,
        seed: int,
        cache: bool = False,
    ) -> None:
        self.pictures, self.views, self.seed = pictures, views, seed
        self.source: Pictures | Cached = cached(pictures) if cache else pictures
        self.labels = None if pictures.labels is None else torch.from_numpy(pictures.labels)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """Return the views of one image, and "label", "index" and "broken", int64 scalars.

        "label" is missing without labels; "broken" is 1 where the image of that "index"
        could not be read, and views and label are another image's.

        Raises:
            ImagesError: Neither the image nor any of twenty others can be read.
        """
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Tensor]]:
        """Return the views of some images: saving generators once is cheaper than for each."""
        if get_worker_info() is not None:
            return [self._item(epoch, index) for epoch, index in keys]
        with _generators_kept():
            return [self._item(epoch, index) for epoch, index in keys]

    def _item(self, epoch: int, index: int) -> dict[str, Tensor]:
        image, taken = self._read(epoch, index)
        _seed(self.seed, epoch, index)
        item = dict(self.views(image))
        if self.labels is not None:
            item["label"] = self.labels[taken].clone()  # a view would be sent with all labels
        item["index"] = torch.tensor(index)
        item["broken"] = torch.tensor(int(taken != index))
        return item

    def _read(self, epoch: int, index: int) -> tuple[Image.Image, int]:
        """Return an image and its index, another one's if it is broken."""
        taken, reason = index, ""
        for attempt in range(1, ATTEMPTS + 2):
            try:
                return self.source.read(taken), taken
            except ImagesError as error:
                reason = reason or error.cause
            taken = _draw(self.seed, epoch, index, attempt)[0] % len(self.pictures)
        raise ImagesError(
            f"{self.pictures.name(index)} of {self.pictures.label} cannot be used ({reason}), "
            f"nor can {ATTEMPTS} others that were tried in its place",
            "check the files; most of them seem to be no images",
        )


class Broken:
    """Collects which images could not be read.

    Attributes:
        indices: Indices of these images.
    """

    def __init__(self) -> None:
        self.indices: set[int] = set()

    def add(self, batch: dict[str, Tensor]) -> None:
        """Note the broken images of a batch."""
        if bool(batch["broken"].any()):
            self.indices |= set(batch["index"][batch["broken"].bool()].tolist())

    def names(self, pictures: Pictures) -> tuple[str, ...]:
        """Return the names of the broken images, in order."""
        return tuple(pictures.name(index) for index in sorted(self.indices))


def _draw(*key: int) -> tuple[int, int, int]:
    """Return three random numbers of 32, 32 and 64 bits that depend on the key alone."""
    packed = struct.pack(f"<{len(key)}q", *key)
    first, second, third = struct.unpack("<IIQ", hashlib.blake2b(packed, digest_size=16).digest())
    return first, second, third


def _seed(*key: int) -> None:
    numpy_seed, random_seed, torch_seed = _draw(*key)
    # not torch.manual_seed, which seeds every device and costs 0.2 ms
    torch.default_generator.manual_seed(torch_seed)
    random.seed(random_seed)
    np.random.seed(numpy_seed)  # noqa: NPY002 - timm's augmentations draw from it


@contextmanager
def _generators_kept() -> Iterator[None]:
    held = torch.default_generator.get_state(), random.getstate()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    try:
        yield
    finally:
        torch.default_generator.set_state(held[0])
        random.setstate(held[1])
        np.random.set_state(legacy)  # noqa: NPY002
