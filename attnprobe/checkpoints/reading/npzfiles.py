"""NumPy's archives to tensors: sizes checked before anything is unpacked or allocated."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attnprobe import npz
from attnprobe.checkpoints.reading.zipdirectory import Entry
from attnprobe.errors import DISTRUST, CheckpointError

SLACK = 100_000_000  # bytes that a file may unpack to beyond twice its own
_KINDS = "biufc"


def read(path: Path, entries: Mapping[str, Entry], size: int) -> dict[str, Tensor]:
    """Return every array of a file as a tensor.

    Raises:
        CheckpointError: It unpacks to far more than it holds, or an array holds no numbers.
        ValueError: It is damaged.
    """
    limit, unpacked = 2 * size + SLACK, sum(entry.unpacked for entry in entries.values())
    if unpacked > limit:
        raise CheckpointError(
            f"{path} unpacks to {unpacked} bytes from a file of {size} bytes",
            DISTRUST,
        )
    arrays = npz.read(path, limit=limit)
    return {name: _tensor(path, name, array) for name, array in arrays.items()}


def _tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.dtype.str == "|V2":  # how numpy writes a bfloat16 that it does not know
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16)
    if array.dtype.kind not in _KINDS or array.dtype.itemsize > 16:
        raise CheckpointError(
            f"{path}: array {name[:80]!a} has dtype {str(array.dtype)[:40]}, expected numbers",
            "save plain arrays of floating-point numbers",
        )
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
