"""Candidates for measuring: each is decoded and preprocessed when it is asked for."""

import hashlib
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from attnprobe.errors import ImagesError
from attnprobe.images import decoding, sources


class Item(NamedTuple):
    """One candidate: its id, and either pixels and a content hash or why there are none.

    Pixels are uint8 [3, h, w], or float32 where they were preprocessed by the caller.
    """

    id: str
    pixels: np.ndarray | None
    digest: bytes
    reason: str = ""


class Items(Protocol):
    """A sequence of candidates that reads one when asked for it."""

    ids: list[str]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Item: ...


class FileItems(Dataset):
    """Image files, decoded and preprocessed one at a time."""

    def __init__(self, source: sources.Source, transform: Any) -> None:
        self.source, self.transform = source, transform
        self.ids = [entry.id for entry in source.entries]

    def __len__(self) -> int:
        return len(self.source.entries)

    def __getitem__(self, index: int) -> Item:
        name = self.ids[index]
        try:
            data = self.source.read(index)
            pixels = self.transform(decoding.decode(data))
        except ImagesError as error:
            return Item(name, None, b"", error.cause)
        return Item(name, pixels, hashlib.sha256(data).digest())


class TensorItems(Dataset):
    """Rows of a tensor that holds preprocessed images."""

    def __init__(self, images: Tensor, size: tuple[int, int, int]) -> None:
        self.images = images
        if not self.images.is_floating_point() or tuple(self.images.shape[1:]) != size:
            raise ImagesError(
                f"expected preprocessed floats [n, {', '.join(map(str, size))}], "
                f"got {self.images.dtype} {list(self.images.shape)}",
                "normalise and resize the images as the checkpoint asks",
            )
        self.ids = [f"tensor#{index:05d}" for index in range(len(images))]
        if not len(self.images):
            raise ImagesError("the tensor holds no images", "give at least one")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        name = self.ids[index]
        pixels = self.images[index].to("cpu", torch.float32).contiguous().numpy()
        if not np.isfinite(pixels).all():
            return Item(name, None, b"", "values are not finite")
        return Item(name, pixels, hashlib.sha256(pixels.tobytes()).digest())
