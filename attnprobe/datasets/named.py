"""Data sets by timm's names: torchvision's, with random access."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attnprobe.datasets import huggingface, splits
from attnprobe.datasets.pictures import Pictures, labelled
from attnprobe.errors import ImagesError
from attnprobe.images.sources import read_file, text

_STREAMS = {"tfds": "hf:NAME", "hfids": "hf:NAME", "wds": "the shards, name-{000..009}.tar"}


@dataclass(frozen=True)
class Torchvision:
    """A torchvision data set.

    Attributes:
        title: Its name.
        dataset: (image, label) by index.
        files: Path of each image, if it has files of its own.
    """

    title: str
    dataset: Any
    files: tuple[str, ...] = ()

    @property
    def hashed(self) -> str:
        """Contents where all pixels are in memory."""
        return "contents" if self._pixels() is not None else "listing"

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """Return the file's path, or the set's name and the place in it."""
        return text(self.files[index]) if self.files else f"{self.title}#{index:05d}"

    def read(self, index: int) -> bytes | Image.Image:
        """Return one image or its file.

        Raises:
            ImagesError: It cannot be read.
        """
        if self.files:
            return read_file(Path(self.files[index]))
        try:
            return self.dataset[index][0]
        except Exception as error:  # torchvision's sets raise whatever they meet
            raise ImagesError(f"cannot be read ({error})") from error

    def facts(self) -> Iterator[Any]:
        """Yield pixels, or the names of files."""
        pixels = self._pixels()
        if pixels is not None:
            yield str(pixels.shape).encode()
            yield np.ascontiguousarray(pixels).data
        else:
            yield "\0".join((self.title, *self.files)).encode(errors="surrogateescape")

    def _pixels(self) -> np.ndarray | None:
        held = getattr(self.dataset, "data", None)
        return np.asarray(held) if getattr(held, "ndim", 0) >= 3 else None


def is_name(source: str) -> bool:
    """Whether a source begins as timm's names do."""
    prefix, slash, _ = source.partition("/")
    return bool(slash) and prefix in {"torch", "hfds", *_STREAMS}


def open_named(name: str, *, split: str, root: str, download: bool) -> Pictures:
    """Open a data set by timm's name.

    Args:
        name: torch/NAME, or hfds/NAME for hf:NAME.
        split: Which part.
        root: Where it lies.
        download: Let it be downloaded there.

    Raises:
        ImagesError: It is not there, is unknown, or can only be read as a stream.
    """
    prefix, _, rest = name.partition("/")
    if prefix in _STREAMS:
        raise ImagesError(
            f"{name} can only be read as a stream, while training reads images in an order of "
            "its own",
            f"give {_STREAMS[prefix]}, torch/NAME, a folder or an .npz",
        )
    if prefix == "hfds":
        return huggingface.open_named(f"{huggingface.PREFIX}{rest}", split=split, root=root)
    dataset = _create(name, split, root, download=download)
    held = next((getattr(dataset, key) for key in ("samples", "imgs") if hasattr(dataset, key)), ())
    files = tuple(str(path) for path, _ in held)
    return labelled(
        name, Torchvision(name, dataset, files), _targets(dataset), getattr(dataset, "classes", ())
    )


def _create(name: str, split: str, root: str, *, download: bool) -> Any:
    from timm.data.dataset_factory import create_dataset

    if not root:
        raise ImagesError(f"{name} needs the folder in which it lies", "give it with --data-dir")
    part = "train" if "train" in splits.spellings(split) else "validation"
    try:
        return create_dataset(name, root=root, split=part, download=download)
    except Exception as error:  # torchvision raises whatever it meets
        remedy = "check the name and --data-dir" if download else "check --data-dir or --download"
        raise ImagesError(f"{name} cannot be opened in {root}: {error}", remedy) from error


def _targets(dataset: Any) -> Any:
    held = getattr(dataset, "targets", None)
    return None if held is None else np.asarray(held)
