"""What a caller may give as images: paths, or tensors that are preprocessed already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnprobe.errors import ImagesError

REMEDY = (
    "give a folder, a file, a list of paths, `bundled`, or preprocessed images as one float "
    "tensor [n, 3, height, width] or a list of [3, height, width]"
)


def checked(source: Any) -> Tensor | str | Path | Sequence[str | Path]:
    """Return the source as paths or as one tensor.

    >>> checked([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]).shape
    torch.Size([2, 3, 8, 8])

    Raises:
        ImagesError: It is of another type, empty, or mixed.
    """
    if isinstance(source, str | Path):
        return source
    if isinstance(source, Tensor | np.ndarray):
        return _tensor(source)
    if not isinstance(source, list | tuple):
        raise ImagesError(f"images cannot be a {type(source).__name__}", REMEDY)
    if not source:
        raise ImagesError("the list of images is empty", REMEDY)
    if all(isinstance(item, str | Path) for item in source):
        return source
    return _stacked(source)


def _stacked(items: Sequence[Any]) -> Tensor:
    kinds = sorted({type(item).__name__ for item in items})
    if not all(isinstance(item, Tensor | np.ndarray) for item in items):
        raise ImagesError(f"images cannot be a list of {' and '.join(kinds)}", REMEDY)
    tensors = [_tensor(item) for item in items]
    shapes = sorted({tuple(item.shape) for item in tensors})
    if len(shapes) > 1:
        raise ImagesError(
            f"the images of the list differ in shape: {shapes[0]} and {shapes[1]}",
            "preprocess all images to the size that the checkpoint asks for",
        )
    return torch.stack(tensors)


def _tensor(array: Any) -> Tensor:
    try:
        return torch.as_tensor(array).detach()
    except (TypeError, ValueError) as error:  # arrays of text or objects
        raise ImagesError(f"images cannot be an array of {array.dtype}", REMEDY) from error
