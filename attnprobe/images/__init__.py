"""Turn a place with images into preprocessed batches with ids, in a fixed order.

Preprocessing is timm's evaluation transform for the checkpoint. What cannot be read is
skipped and named. Every run hashes what it used.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from attnprobe.errors import ImagesError
from attnprobe.images import decoding, given, sources
from attnprobe.images.items import FileItems, Item, Items, TensorItems
from attnprobe.images.sets import ImageBatch, ImageSet, combined_hash, evenly_spaced
from attnprobe.types import CheckpointSpec

__all__ = [
    "ImageBatch",
    "ImageSet",
    "Item",
    "Items",
    "combined_hash",
    "evenly_spaced",
    "open_images",
]


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
        rows = TensorItems(accepted, spec.input_size)
        steps = {"tensor": "preprocessed by the caller"}
        return ImageSet(rows, label="the tensor", transform=steps, limit=limit)
    found = sources.find(accepted)
    transform, steps = decoding.preprocessing(spec)
    files = FileItems(found, transform)
    return ImageSet(files, label=found.label, transform=steps, limit=limit, spec=spec)
