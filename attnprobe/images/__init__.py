"""Turn a place with images into preprocessed batches with ids, in a fixed order.

Preprocessing is timm's evaluation transform for the checkpoint. What cannot be read is
skipped and named; batches stay full. Every run hashes what it used.
"""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from attnprobe.errors import ImagesError
from attnprobe.images import decoding, given, sources
from attnprobe.types import CheckpointSpec

IN_FLIGHT = 8  # images a worker hands over at once


@dataclass(frozen=True)
class ImageBatch:
    """Some preprocessed images.

    Attributes:
        ids: One id an image.
        x: float32 [n, 3, height, width].
    """

    ids: tuple[str, ...]
    x: Tensor


class Item(NamedTuple):
    """One candidate: its id, and either pixels and a content hash or why there are none."""

    id: str
    pixels: np.ndarray | None
    digest: bytes
    reason: str = ""


class Items(Protocol):
    """A sequence of candidates that reads one when asked for it."""

    ids: list[str]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Item: ...


class ImageSet:
    """Images in a fixed order, read while iterating; build it with `open_images`.

    Attributes:
        label: What the user gave as source.
        found: Candidates in the source.
        count: Candidates that will be read: those found, or the limit if it is smaller.
        transform: Preprocessing, one entry a step, as text.
        skipped: "id: reason" of the images that the last iteration could not read.
        sha256: Hash over ids and contents (bytes of the image files; float32 values of a
            tensor) of the images that the last iteration yielded, in order.
    """

    def __init__(
        self, items: Items, *, label: str, transform: dict[str, str], limit: int | None = None
    ) -> None:
        if limit is not None and limit < 1:
            raise ImagesError(f"a limit of {limit} leaves no images", "give a limit of 1 or more")
        self._items = items
        self._picked = evenly_spaced(len(items), limit)
        self.label, self.transform = label, transform
        self.found, self.count = len(items), len(self._picked)
        self._start()

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images that could not be read, "id: reason"."""
        return tuple(self._skipped)

    @property
    def sha256(self) -> str:
        """Hash of the images yielded so far; the empty hash before any iteration."""
        return self._hash.hexdigest()

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the candidates that will be read, in order."""
        return tuple(self._items.ids[index] for index in self._picked)

    def batches(self, batch_size: int, *, workers: int = 0) -> Iterator[ImageBatch]:
        """Read, preprocess and yield full batches (the last may be smaller), in order.

        Args:
            batch_size: Images in a batch.
            workers: Processes that decode; the batches are the same for any number.

        Raises:
            ImagesError: Not one image could be read.
        """
        if batch_size < 1 or workers < 0:
            raise ImagesError(
                f"batches of {batch_size} images by {workers} workers are impossible",
                "give a batch size of 1 or more and 0 or more workers",
            )
        self._start()
        return self._fill(batch_size, workers)

    def _start(self) -> None:
        self._hash, self._skipped = hashlib.sha256(), list[str]()

    def _fill(self, batch_size: int, workers: int) -> Iterator[ImageBatch]:
        ids: list[str] = []
        rows: list[np.ndarray] = []
        used = 0
        for item in _stream(self._items, self._picked, workers):
            if item.pixels is None:
                self._skipped.append(f"{item.id}: {item.reason}")
                continue
            self._hash.update(hashlib.sha256(item.id.encode()).digest() + item.digest)
            ids.append(item.id)
            rows.append(item.pixels)
            if len(ids) == batch_size:
                yield ImageBatch(tuple(ids), torch.from_numpy(np.stack(rows)))
                used, ids, rows = used + len(ids), [], []
        if ids:
            yield ImageBatch(tuple(ids), torch.from_numpy(np.stack(rows)))
        elif not used:
            raise ImagesError(
                f"none of the {self.count} images of {self.label} can be used; "
                f"the first is {self._skipped[0]}",
                "check the files, or use the sample images: `bundled`",
            )


def open_images(
    source: str | Path | Sequence[str | Path | Tensor | np.ndarray] | Tensor | np.ndarray,
    *,
    spec: CheckpointSpec,
    limit: int | None = None,
) -> ImageSet:
    """List the images of a source; they are read by `ImageSet.batches`.

    Args:
        source: A folder (searched to the bottom, sorted by relative path), an image file, a
            list of paths, a `.txt` with one path a line (relative to it), a `.npz` of JPEG
            files (`jpeg`, `offset`), an uncompressed `.tar`, "bundled", or float images
            [n, 3, height, width] (or a list of them) that are preprocessed already.
        spec: The checkpoint, which says how to preprocess.
        limit: Take only that many, evenly spaced over the source.

    Raises:
        ImagesError: There is nothing to read, or it does not fit the checkpoint.
    """
    if spec.input_size[0] != 3:
        raise ImagesError(
            f"{spec.name} expects {spec.input_size[0]} channels; images have 3",
            "choose a checkpoint for RGB images",
        )
    accepted = given.checked(source)
    if isinstance(accepted, Tensor):
        rows = _TensorItems(accepted, spec.input_size)
        steps = {"tensor": "preprocessed by the caller"}
        return ImageSet(rows, label="the tensor", transform=steps, limit=limit)
    found = sources.find(accepted)
    transform, steps = decoding.preprocessing(spec)
    files = _FileItems(found, transform)
    return ImageSet(files, label=found.label, transform=steps, limit=limit)


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Positions of `limit` items spread evenly over `count`, or of all of them.

    >>> evenly_spaced(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


class _FileItems(Dataset):
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
            pixels = self.transform(decoding.decode(data)).numpy()
        except ImagesError as error:
            return Item(name, None, b"", error.cause)
        return Item(name, pixels, hashlib.sha256(data).digest())


class _TensorItems(Dataset):
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


def _stream(items: Items, picked: Sequence[int], workers: int) -> Iterable[Item]:
    """Candidates in order, read here or by worker processes."""
    if not workers:
        return (items[index] for index in picked)
    loader = DataLoader(
        items,  # type: ignore[arg-type] - any sized, indexable object is a map-style dataset
        sampler=picked,
        batch_size=IN_FLIGHT,
        collate_fn=list,  # numpy items go through a pipe: no shared memory to run out of
        num_workers=min(workers, math.ceil(len(picked) / IN_FLIGHT)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about forking and the number of cores; both are fine
        chunks = iter(loader)
    return (item for chunk in chunks for item in chunk)
