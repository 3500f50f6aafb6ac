"""A set of images in a fixed order, and the batches in which it is read."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from attnprobe.errors import ImagesError
from attnprobe.images.decoding import normalise
from attnprobe.images.items import Item, Items
from attnprobe.types import CheckpointSpec

IN_FLIGHT = 8  # images a worker hands over at once
AHEAD = 4  # times that, which each worker prepares in advance


@dataclass(frozen=True)
class ImageBatch:
    """Some images, read and cut to size.

    Attributes:
        ids: One id an image.
        pixels: uint8 [n, 3, height, width], or float32 where they came preprocessed.
        spec: How bytes are normalised; None for floats.
        numbers: Number of each image among the candidates.
        digests: Hash of each one's content, uint8 [n, 32].
        skipped: Candidates before and among these that could not be read, and why, by number.
    """

    ids: tuple[str, ...]
    pixels: Tensor
    spec: CheckpointSpec | None = None
    numbers: tuple[int, ...] = ()
    digests: np.ndarray = field(default_factory=lambda: np.empty((0, 32), dtype=np.uint8))
    skipped: dict[int, str] = field(default_factory=dict)

    @property
    def x(self) -> Tensor:
        """The preprocessed images, float32 [n, 3, height, width]."""
        return self.pixels if self.spec is None else normalise(self.pixels, self.spec)


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
        self,
        items: Items,
        *,
        label: str,
        transform: dict[str, str],
        limit: int | None = None,
        spec: CheckpointSpec | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ImagesError(f"a limit of {limit} leaves no images", "give a limit of 1 or more")
        self._items, self._spec = items, spec
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
        return combined_hash(self._used, self._digests)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the candidates that will be read, in order."""
        return tuple(self._items.ids[index] for index in self._picked)

    def batches(self, batch_size: int, *, workers: int = 0) -> Iterator[ImageBatch]:
        """Read and yield full batches (the last may be smaller), in order.

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
        return self._all(batch_size, workers)

    def read(
        self, numbers: Sequence[int], batch_size: int, *, workers: int = 0
    ) -> Iterator[ImageBatch]:
        """Read some of the candidates; like `batches`, but a batch may be empty of images.

        Args:
            numbers: The candidates, by number, ascending.
            batch_size: Images in a batch.
            workers: Processes that decode.
        """
        rows: list[tuple[int, Item]] = []
        skipped: dict[int, str] = {}
        picked = [self._picked[number] for number in numbers]
        stream = _stream(self._items, picked, workers)
        for number, item in zip(numbers, stream, strict=True):
            if item.pixels is None:
                skipped[number] = f"{item.id}: {item.reason}"
                continue
            rows.append((number, item))
            if len(rows) == batch_size:
                yield self._batch(rows, skipped)
                rows, skipped = [], {}
        if rows or skipped:
            yield self._batch(rows, skipped)

    def no_images(self, first: str) -> ImagesError:
        """Return what to raise where not one image could be read.

        Args:
            first: The first that could not, "id: reason".
        """
        return ImagesError(
            f"none of the {self.count} images of {self.label} can be used; the first is {first}",
            "check the files, or use the sample images: `bundled`",
        )

    def _start(self) -> None:
        self._used, self._digests, self._skipped = list[str](), list[bytes](), list[str]()

    def _all(self, batch_size: int, workers: int) -> Iterator[ImageBatch]:
        for batch in self.read(range(self.count), batch_size, workers=workers):
            self._skipped += batch.skipped.values()
            self._used += batch.ids
            self._digests += [row.tobytes() for row in batch.digests]
            if batch.ids:
                yield batch
        if not self._used:
            raise self.no_images(self._skipped[0])

    def _batch(self, rows: list[tuple[int, Item]], skipped: dict[int, str]) -> ImageBatch:
        pixels = [item.pixels for _, item in rows if item.pixels is not None]
        digests = b"".join(item.digest for _, item in rows)
        stacked = np.stack(pixels) if pixels else np.empty((0, 3, 1, 1), dtype=np.uint8)
        return ImageBatch(
            ids=tuple(item.id for _, item in rows),
            pixels=torch.from_numpy(stacked),
            spec=self._spec,
            numbers=tuple(number for number, _ in rows),
            digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
            skipped=skipped,
        )


def combined_hash(ids: Iterable[str], digests: Iterable[bytes]) -> str:
    """Return the hash over ids and hashes of contents, in order."""
    found = hashlib.sha256()
    for name, digest in zip(ids, digests, strict=True):
        found.update(hashlib.sha256(name.encode()).digest() + digest)
    return found.hexdigest()


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Positions of `limit` items spread evenly over `count`, or of all of them.

    >>> evenly_spaced(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def _stream(items: Items, picked: Sequence[int], workers: int) -> Iterable[Item]:
    """Candidates in order, read here or by worker processes."""
    if not (workers and picked):
        return (items[index] for index in picked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about forking and the number of cores; both are fine
        loader = DataLoader(
            items,  # type: ignore[arg-type] - any sized, indexable object is a map-style dataset
            sampler=picked,
            batch_size=IN_FLIGHT,
            collate_fn=list,  # numpy items go through a pipe: no shared memory to run out of
            num_workers=min(workers, math.ceil(len(picked) / IN_FLIGHT)),
            prefetch_factor=AHEAD,
        )
        chunks = iter(loader)
    return (item for chunk in chunks for item in chunk)
