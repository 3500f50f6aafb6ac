"""Sets of images that outgrow a folder, as candidates for measuring."""

import hashlib
import os
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from attnprobe.datasets import huggingface, named, shards, splits
from attnprobe.datasets.opening import open_pictures
from attnprobe.datasets.pictures import Pictures, upright
from attnprobe.errors import ImagesError
from attnprobe.images import ImageSet, Item, open_images
from attnprobe.images.decoding import preprocessing
from attnprobe.types import CheckpointSpec

PACKED = (".tar", ".parquet")


def open_set(
    source: Any, *, spec: CheckpointSpec, limit: int | None = None, split: str = "val"
) -> ImageSet:
    """List the images of a source of any kind; they are read by `ImageSet.batches`.

    Args:
        source: Anything `open_images` takes, or WebDataset shards (`shards-{000..009}.tar`, a
            folder of them, a list with commas), `hf:NAME[:CONFIG]`, a folder that `datasets`
            saved, Parquet files, `torch/cifar10`.
        spec: The checkpoint, which says how to preprocess.
        limit: Take only that many, evenly spaced over the source.
        split: Which part, of sources that are divided.

    Raises:
        ImagesError: There is nothing to read, or it does not fit the checkpoint.
    """
    if not (isinstance(source, str | Path) and is_packed(source)):
        return open_images(source, spec=spec, limit=limit)
    pictures = open_pictures(source, split=split)
    transform, steps = preprocessing(spec)
    items = _PictureItems(pictures, transform)
    return ImageSet(items, label=pictures.label, transform=steps, limit=limit, spec=spec)


def is_packed(source: str | Path) -> bool:
    """Whether a source is a data set rather than image files of their own.

    >>> is_packed("hf:cifar10"), is_packed("shards-{00..03}.tar"), is_packed("bundled")
    (True, True, False)
    """
    path, label = Path(source), str(source)
    if label.startswith(huggingface.PREFIX):
        return True
    if os.path.isdir(path):  # noqa: PTH112 - unlike pathlib's it never raises
        return huggingface.is_saved(path) or any(splits.holds(path, kind) for kind in PACKED)
    if os.path.exists(path):  # noqa: PTH110
        return path.suffix.lower() == ".parquet"
    return named.is_name(label) or shards.is_pattern(label)


class _PictureItems(Dataset):
    """Images of a data set, decoded and preprocessed one at a time."""

    def __init__(self, pictures: Pictures, transform: Any) -> None:
        self.pictures, self.transform = pictures, transform
        self.ids = [pictures.name(index) for index in range(len(pictures))]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item:
        name = self.ids[index]
        try:
            found = self.pictures.images.read(index)
            pixels = self.transform(upright(found))
        except ImagesError as error:
            return Item(name, None, b"", error.cause)
        return Item(name, pixels, _digest(found))


def _digest(found: bytes | Image.Image) -> bytes:
    """Return a hash of a file, or of the size and pixels of an image without one."""
    if isinstance(found, bytes):
        return hashlib.sha256(found).digest()
    head = f"{found.mode} {found.width} {found.height}\n".encode()
    return hashlib.sha256(head + found.tobytes()).digest()
